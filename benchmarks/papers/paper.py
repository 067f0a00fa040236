"""Paper: the frame of a reproduction. Parts run named studies; what they find is printed, drawn, written and held to.

A paper's command keeps every study in ``OUT/TIER/NAME.h5`` and goes on where it was stopped. It writes ``report.md``,
``report.json`` (of single parts ``report-PART...``) and each figure as PNG and SVG beside them, and ends with 1 if a
claim does not hold. Networks that it trains lie in ``OUT/TIER/models``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import xarray as xr
from claim import Claim
from models import HOME, Models
from sheet import Sheet

from xbarsim import Study, plot
from xbarsim.bench.machine import Machine
from xbarsim.cli.common import new_console
from xbarsim.errors import XbarsimError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xbarsim.study.schedule import Progress, Schedule

__all__ = ["Campaign", "Claim", "Paper", "Result", "Sheet"]

Tier = Literal["quick", "full"]

SHIPPED = 1000
"""Test images that come with xbarsim, the first of Fashion-MNIST's."""
RECORD = 1 + 3 * 32 * 32
"""Bytes of an image of CIFAR-10 and its label."""
CALIBRATION = 100
"""Training images for calibration, the first ones."""
IMAGES = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
"""All of them: ``apt-get install dataset-fashion-mnist``."""

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@dataclass(frozen=True)
class Result:
    """What a part found."""

    sheets: Sequence[Sheet] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By the name of their files, without suffix."""
    claims: Sequence[Claim] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    """Plain values for programs."""
    notes: Sequence[str] = ()
    """Sentences that belong to the tables."""


@dataclass(frozen=True)
class Campaign:
    """One run of a paper's parts: how much is simulated, and where it is kept."""

    tier: Tier
    folder: Path
    models: Models
    chips: int
    """Simulated chips of each point."""
    images: int
    """Test images: the first ones."""
    workers: int | None = None
    quiet: bool = False
    data: Path | None = None
    """Folder of CIFAR-10's binary files, instead of Fashion-MNIST."""

    @property
    def full(self) -> bool:
        """Whether everything is trained and simulated that the paper's figures need."""
        return self.tier == "full"

    def study(
        self,
        name: str,
        model: str | Sequence[str],
        axes: Sequence[Mapping[str, Any]],
        *,
        chip: str | Mapping[str, Any] = "ideal",
        chips: int | None = None,
        images: int | None = None,
        **fields: Any,
    ) -> xr.Dataset:
        """Run a study, or what is missing of it, and return its figures.

        Parameters
        ----------
        name : of its file, ``NAME.h5``
        model : name of a network; of several, which become the first axis, ``model``; none where an axis is over it
        axes : as in `Study`
        chip, chips, images : design, chips of a point and images, where they are not those of the campaign
        **fields : further fields of `Study`, such as ``set``
        """
        if isinstance(model, str):
            fields["model"] = self.models.find(model)
        elif model:
            paths = [self.models.find(one) for one in model]
            axes = [{"field": "model", "values": paths, "labels": list(model)}, *axes]
        number = self.images if images is None else images
        study = Study(
            name=name,
            limit=number,
            **self._images(number),
            chip=chip,
            chips=self.chips if chips is None else chips,
            metrics=fields.pop("metrics", ("top-1",)),
            axes=tuple(axes),
            **fields,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        found = study.run(self.folder / f"{name}.h5", workers=self.workers, extend=True, progress=self._watch(name))
        if not found.attrs["complete"]:
            click.echo(f"{name}: stopped; the same command goes on", err=True)
            raise click.Abort
        return found

    def _images(self, number: int) -> dict[str, Any]:
        """Test images, and the training images that chips are calibrated with."""
        if self.data is not None:
            batch = str(self.data / "data_batch_1.bin")
            return {"data": str(self.data / "test_batch.bin"), "calibration": batch, "calibration_limit": CALIBRATION}
        data = "fashion-mnist-1000" if number <= SHIPPED else str(IMAGES)
        return {"data": data, "calibration": "fashion-mnist-calibration"}

    def _watch(self, name: str) -> Callable[[Schedule, Progress | None], None]:
        """A line on stderr now and then."""
        shown = [-1]

        def watch(schedule: Schedule, point: Progress | None) -> None:
            tenth = 10 * schedule.finished // max(1, schedule.wanted)
            if not self.quiet and tenth > shown[0]:
                shown[0] = tenth
                click.echo(f"{name}: {schedule.finished:,} of {schedule.wanted:,} chips", err=True)

        return watch


Part = Callable[[Campaign], Result]


@dataclass(frozen=True)
class Paper:
    """A published work and what is reproduced of it.

    Parameters
    ----------
    name : of the folder and of the program
    title : authors, venue, identifier
    parts : what is simulated and shown, in this order
    chips, images : for each tier
    quick : names of the parts that the quick tier has; all where none is given
    """

    name: str
    title: str
    parts: Mapping[str, Part]
    chips: Mapping[Tier, int]
    images: Mapping[Tier, int]
    quick: Collection[str] = ()

    def command(self) -> click.Command:
        """The program."""

        @click.command(help=f"Reproduce {self.title}.\n\nParts: {', '.join(self.parts)}.")
        @click.option("--full/--quick", default=False, help="Everything, or minutes from shipped networks [--quick].")
        @click.option("--only", multiple=True, type=click.Choice(list(self.parts)), help="This part; repeatable.")
        @click.option("--out", type=click.Path(path_type=Path), default=self.name, show_default=True, help="Folder.")
        @click.option("--data", type=_FOLDER, help="Folder of CIFAR-10 (binary); with --full.")
        @click.option(
            "--models", type=_FOLDER, multiple=True, help="Folder of networks to look into first; repeatable."
        )
        @click.option("--chips", type=click.IntRange(2), help=f"Chips of a point [{_both(self.chips)}].")
        @click.option("--images", type=click.IntRange(1, 10_000), help=f"Test images [{_both(self.images)}].")
        @click.option("--workers", type=click.IntRange(1), help="Processes [default: processors].")
        @click.option("--json", "as_json", is_flag=True, help="Print results for programs.")
        def program(
            full: bool,
            only: tuple[str, ...],
            out: Path,
            data: Path | None,
            models: tuple[Path, ...],
            chips: int | None,
            images: int | None,
            workers: int | None,
            as_json: bool,
        ) -> None:
            tier: Tier = "full" if full else "quick"
            folder = out / (tier if data is None else "cifar-10")
            shipped = (HOME,) if data is None else ()
            campaign = Campaign(
                tier,
                folder,
                Models((*models, *shipped), folder / "models" if full else None, data),
                chips or self.chips[tier],
                images or self.images[tier],
                workers,
                quiet=as_json,
                data=data,
            )
            names = self._names(only, full)
            _check(campaign)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                found = {name: self.parts[name](campaign) for name in names}
                if data is not None:  # what is claimed is of Fashion-MNIST
                    found = {name: replace(result, claims=()) for name, result in found.items()}
                self._publish(found, campaign, "-".join(("report", *names)) if only else "report", as_json)
            except XbarsimError as error:
                click.echo(f"error: {error}", err=True)
                sys.exit(2)
            except OSError as error:
                click.echo(f"error: {error.filename or folder}: {error.strerror or error}", err=True)
                sys.exit(2)
            if failed := [claim for result in found.values() for claim in result.claims if not claim.holds]:
                more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
                click.echo(f"does not hold: {failed[0]}{more}", err=True)
                sys.exit(1)

        return program

    def _names(self, only: Collection[str], full: bool) -> list[str]:
        """The parts that are asked for, in their order."""
        known = list(self.parts) if full or not self.quick else [name for name in self.parts if name in self.quick]
        if missing := [name for name in only if name not in known]:
            raise click.UsageError(f"--only {missing[0]} is a part of --full; those of --quick are {', '.join(known)}")
        return [name for name in known if name in only or not only]

    def _publish(self, found: Mapping[str, Result], campaign: Campaign, report: str, as_json: bool) -> None:
        """Print and write what was found: ``report`` is the name of two files."""
        folder = campaign.folder
        images = f"{campaign.images} images" if campaign.data is None else f"{campaign.images} images of CIFAR-10"
        setting = f"{Machine.this().name}; {campaign.tier}: {images} at most, {campaign.chips} chips a point or more"
        results = self._values(found, campaign)
        (folder / f"{report}.json").write_text(json.dumps(results, indent=2) + "\n")
        (folder / f"{report}.md").write_text(self._markdown(found, setting))
        for result in found.values():
            for name, figure in result.figures.items():
                for suffix in (".png", ".svg"):
                    plot.save(figure, folder / f"{name}{suffix}", force=True)
        if as_json:
            click.echo(json.dumps(results, indent=2))
        else:
            self._print(found, setting)
            click.echo(f"written: {folder / report}.md")

    def _values(self, found: Mapping[str, Result], campaign: Campaign) -> dict[str, Any]:
        parts = {
            name: {
                **result.values,
                "tables": [sheet.to_dict() for sheet in result.sheets],
                "claims": [claim.to_dict() for claim in result.claims],
                "notes": list(result.notes),
            }
            for name, result in found.items()
        }
        campaigned = {"tier": campaign.tier, "images": campaign.images, "chips": campaign.chips}
        return {"paper": self.title, "machine": Machine.this().name, **campaigned, "parts": parts}

    def _markdown(self, found: Mapping[str, Result], setting: str) -> str:
        blocks = [f"# {self.title}", setting]
        for name, result in found.items():
            blocks += [f"## {name}", *(sheet.markdown() for sheet in result.sheets), *result.notes]
            blocks += [f"![{figure}]({figure}.png)" for figure in result.figures]
            blocks += ["\n".join(f"- {_verdict(claim)}: {claim}" for claim in result.claims)] if result.claims else []
        return "\n\n".join(blocks) + "\n"

    def _print(self, found: Mapping[str, Result], setting: str) -> None:
        console = new_console()
        console.print(setting, highlight=False)
        for result in found.values():
            for sheet in result.sheets:
                console.print(sheet.rich())
            for note in result.notes:
                console.print(note, highlight=False)
            for claim in result.claims:
                console.print(f"{_verdict(claim)}: {claim}", highlight=False)


def _check(campaign: Campaign) -> None:
    """Refuse images that are not there, and networks that nobody has."""
    data, wanted = campaign.data, campaign.images
    if data is None:
        if wanted > SHIPPED and not IMAGES.exists():
            raise click.UsageError(f"--images {wanted}: {IMAGES} is missing (dataset-fashion-mnist)")
        return
    if not campaign.full:
        raise click.UsageError("--data: networks for other images must be trained; add --full")
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        if not (data / name).exists():
            raise click.UsageError(f"--data {data}: {name} is missing; it is for CIFAR-10 in its binary version")
    if wanted > (there := (data / "test_batch.bin").stat().st_size // RECORD):
        raise click.UsageError(f"--images {wanted}: {data / 'test_batch.bin'} holds {there:,}")


def _verdict(claim: Claim) -> str:
    return "holds" if claim.holds else "DOES NOT HOLD"


def _both(figures: Mapping[Tier, int]) -> str:
    return ", ".join(f"{tier}: {figure}" for tier, figure in figures.items())
