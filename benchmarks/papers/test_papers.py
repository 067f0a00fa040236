"""The frame that reproductions of papers share: tolerated rates, claims, tables, studies that go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from claim import Claim
from click.testing import CliRunner
from models import Models
from paper import Campaign, Paper, Result, Sheet
from tolerance import Curve, Estimate, ratio, tolerated

from xbarsim.errors import ModelError

HERE = Path(__file__).parent
RATES = np.geomspace(1e-4, 1e-1, 10)


def falling(slope: float, chips: int = 20, noise: float = 0.0, seed: int = 0) -> Curve:
    """Chips that lose ``slope`` points for each decade beyond 1e-4, linear in the rate's logarithm."""
    shift = noise * np.random.default_rng(seed).standard_normal(chips)
    lost = slope * np.log10(RATES / RATES[0])[:, None] + shift
    return Curve(RATES, 0.9 - lost, np.full(chips, 0.9))


class TestTolerance:
    def test_closed_form(self) -> None:
        """Where the loss is linear in the logarithm of the rate, interpolation is exact."""
        for loss in (0.01, 0.02, 0.05, 0.25):
            assert falling(0.1).tolerated(loss) == pytest.approx(1e-4 * 10 ** (loss / 0.1), rel=1e-12)

    def test_between_points_of_a_smooth_curve(self) -> None:
        """A loss of 5 times the rate: the true rate is loss/5; a chord lies above a convex curve, here by up to 8 %."""
        curve = Curve(RATES, 0.9 - 5.0 * RATES[:, None], np.array([0.9]))
        for loss in (0.01, 0.02, 0.05):
            found = curve.tolerated(loss)
            assert 0.90 * loss / 5 < found <= loss / 5 * (1 + 1e-9)

    def test_beyond_what_was_simulated(self) -> None:
        assert falling(0.1).tolerated(0.31) == np.inf
        assert Curve(RATES, np.full((10, 1), 0.5), np.array([0.9])).tolerated(0.02) == 0.0

    def test_the_first_crossing_counts(self) -> None:
        lost = np.array([0.0, 0.0, 0.04, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3])
        found = Curve(RATES, 0.9 - lost[:, None], np.array([0.9])).tolerated(0.02)
        assert found == pytest.approx(np.sqrt(RATES[1] * RATES[2]))

    def test_at_is_the_inverse(self) -> None:
        curve = falling(0.1)
        assert curve.at(0.0) == pytest.approx(0.9)
        assert curve.at(curve.tolerated(0.03)) == pytest.approx(0.87)
        assert curve.at(RATES[0] / 2) == pytest.approx(0.9)

    def test_interval_covers_the_truth(self) -> None:
        """A bootstrap of 20 chips is a little narrow: it misses in 7 % of cases, 14 of 200; 28 would be 3.9 sigma."""
        truth = 1e-4 * 10**0.5
        ends = [tolerated(falling(0.1, 20, 0.01, seed), 0.05) for seed in range(200)]
        missed = sum(not one.low <= truth <= one.high for one in ends)
        assert 0 < missed < 28

    def test_ratio_is_of_the_same_chips(self) -> None:
        """What chips have in common leaves the ratio of two curves: only one of them is shifted by 0.1 decades."""
        one, other = falling(0.1, noise=0.01), falling(0.11, noise=0.011)
        apart = ratio(one, falling(0.11, noise=0.011, seed=5), 0.05)
        together = ratio(one, other, 0.05)
        assert together.high / together.low < 0.2 * (apart.high / apart.low - 1) + 1
        assert together.low <= together.value <= together.high
        first = Curve(one.rates, one.accuracy[:, :10], one.clean[:10])
        assert ratio(one, first, 0.05) == Estimate(1.0, 1.0, 1.0)

    def test_a_draw_without_a_ratio_may_be_anything(self) -> None:
        """Both curves of some draws never lose so much: neither end of the interval is known, the ratio is."""
        lost = np.linspace(0.0, 0.06, 10)[:, None] * np.array([0.0, 1.0])  # one chip of two never loses anything
        one = Curve(RATES, 0.9 - lost, np.full(2, 0.9))
        found = ratio(one, one, 0.02)
        assert found == Estimate(1.0, 0.0, np.inf)

    def test_same_seed_same_interval(self) -> None:
        assert tolerated(falling(0.1, noise=0.01), 0.05) == tolerated(falling(0.1, noise=0.01), 0.05)


class TestClaim:
    @pytest.mark.parametrize(
        ("value", "sense", "holds"),
        [
            (8.0, "at least", True),
            (7.99, "at least", False),
            (8.01, "at most", False),
            (np.inf, "at least", True),
            (np.nan, "at least", False),
            (np.nan, "at most", False),
        ],
    )
    def test_holds(self, value: float, sense: Any, holds: bool) -> None:
        claim = Claim("ratio", value, 8.0, sense)
        assert claim.holds is holds
        json.dumps(claim.to_dict(), allow_nan=False)


def _paper(tmp: Path, bound: float) -> Paper:
    def part(campaign: Campaign) -> Result:
        found = campaign.study("one", "lenet5", RATE_AXIS, set={"faults.mix": "yuan2021"})
        curve = Curve.of(found)
        assert curve.clean.shape == (campaign.chips,)
        rows = [(f"{rate:g}", f"{mean:.3f}") for rate, mean in zip(curve.rates, curve.mean, strict=True)]
        sheet = Sheet("Accuracy", ("rate", "mean"), rows)
        return Result([sheet], claims=[Claim("lost at 5 %", float(0.9 - curve.mean[-1]), bound)])

    return Paper("test", "A paper", {"part": part}, {"quick": 2, "full": 3}, {"quick": 20, "full": 30})


def _none(campaign: Campaign) -> Result:
    return Result()


RATE_AXIS: list[Mapping[str, Any]] = [{"field": "faults.rate", "values": [0, 0.01, 0.05]}]


class TestCommand:
    def run(self, tmp_path: Path, bound: float, *more: str) -> Any:
        command = _paper(tmp_path, bound).command()
        return CliRunner().invoke(command, ["--out", str(tmp_path), "--workers", "1", *more])

    def test_writes_and_exits(self, tmp_path: Path) -> None:
        first = self.run(tmp_path, 0.0)
        assert first.exit_code == 0, first.output
        assert "holds: lost at 5 %" in first.stdout
        assert "| rate | mean |" in (tmp_path / "quick" / "report.md").read_text()
        figures = json.loads((tmp_path / "quick" / "report.json").read_text())
        assert figures["chips"] == 2
        # again: nothing is computed, and a bound that cannot be kept is one line and exit code 1
        assert self.run(tmp_path, 0.0).stderr == "one: 6 of 6 chips\n"
        again = self.run(tmp_path, 1.0, "--json")
        assert again.exit_code == 1
        assert again.stderr.startswith("does not hold: lost at 5 %")
        assert again.stderr.count("\n") == 1
        assert json.loads(again.stdout)["parts"]["part"]["tables"] == figures["parts"]["part"]["tables"]

    def test_single_parts_have_a_report_of_their_own(self, tmp_path: Path) -> None:
        self.run(tmp_path, 0.0)
        before = (tmp_path / "quick" / "report.md").read_text()
        found = self.run(tmp_path, 0.0, "--only", "part", "--chips", "3")
        assert found.exit_code == 0
        assert (tmp_path / "quick" / "report.md").read_text() == before
        assert "3 chips" in (tmp_path / "quick" / "report-part.md").read_text()

    def test_what_only_the_full_tier_has_is_said(self, tmp_path: Path) -> None:
        paper = replace(_paper(tmp_path, 0.0), quick={"other"}, parts={"part": _none, "other": _none})
        found = CliRunner().invoke(paper.command(), ["--out", str(tmp_path), "--only", "part"])
        assert found.exit_code == 2
        assert "--only part is a part of --full; those of --quick are other" in found.stderr
        assert not (tmp_path / "quick").exists()

    def test_places_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found = CliRunner().invoke(_paper(tmp_path, 0.0).command(), ["--out", str(tmp_path / "file")])
        assert found.exit_code == 2
        assert found.stderr.count("\n") == 1
        assert str(tmp_path / "file") in found.stderr
        found = self.run(tmp_path, 0.0, "--models", str(tmp_path / "none"))
        assert found.exit_code == 2
        assert "does not exist" in found.stderr

    def test_a_study_of_other_settings_is_left_alone(self, tmp_path: Path) -> None:
        self.run(tmp_path, 0.0)
        found = self.run(tmp_path, 0.0, "--images", "10")
        assert found.exit_code == 2
        assert "begin anew: delete this one" in found.stderr

    def test_networks_that_are_given_come_first(self, tmp_path: Path) -> None:
        (tmp_path / "lenet5.onnx").write_bytes(b"no model")
        found = self.run(tmp_path, 0.0, "--models", str(tmp_path))
        assert found.exit_code == 2
        assert str(tmp_path / "lenet5.onnx") in found.stderr

    def test_more_chips_keep_the_first(self, tmp_path: Path) -> None:
        self.run(tmp_path, 0.0)
        found = self.run(tmp_path, 0.0, "--chips", "3")
        assert found.exit_code == 0
        assert "one: 6 of 9 chips" in found.stderr


def test_missing_model_says_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nobody\.onnx is not in .*train\.py nobody trains it"):
        Models([tmp_path]).find("nobody")
    (tmp_path / "nobody.onnx").touch()
    assert Models([tmp_path]).find("nobody") == str(tmp_path / "nobody.onnx")
    assert Models([tmp_path]).find("lenet5") == "lenet5"


def test_goes_on_after_a_kill(tmp_path: Path) -> None:
    """What a killed process has finished is not computed again, and the figures are those of a run at one go."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pathlib import Path
            sys.path.insert(0, {str(HERE)!r})
            from models import Models
            from paper import Campaign
            if __name__ == "__main__":
                campaign = Campaign("quick", Path(sys.argv[1]), Models(), 12, 100, 1)
                axes = [{{"field": "faults.rate", "values": [0, 0.01]}}]
                found = campaign.study("one", "lenet5", axes, set={{"faults.mix": "yuan2021"}})
                print(found["top-1"].values.tolist())
            """
        )
    )
    whole = subprocess.run([sys.executable, program, tmp_path / "whole"], capture_output=True, text=True, check=True)
    process = subprocess.Popen([sys.executable, program, tmp_path / "cut"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("one: ") and not line.startswith("one: 0 "):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    rest = subprocess.run([sys.executable, program, tmp_path / "cut"], capture_output=True, text=True, check=True)
    assert not rest.stderr.startswith("one: 0 ")
    assert rest.stdout == whole.stdout


class TestCifar:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        for name, n in (*((f"data_batch_{number}", 52) for number in range(1, 6)), ("test_batch", 100)):
            records = rng.integers(0, 256, (n, 3073)).astype(np.uint8)
            records[:, 0] %= 10
            records.tofile(tmp_path / f"{name}.bin")
        return tmp_path

    def run(self, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HERE / "yuan2021.py"), "--only", "mix", "--chips", "2", "--images", "20", *more]
        command += ["--out", str(folder), "--data", str(folder), "--workers", "1"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_networks_are_trained_and_tested_on_it(self, folder: Path) -> None:
        """No claim is held to pixels that are noise: all are of Fashion-MNIST."""
        pytest.importorskip("torch", reason="training needs PyTorch: pip install torch")
        found = self.run(folder, "--full")
        assert found.returncode == 0, found.stderr
        out = folder / "cifar-10"
        assert "20 images of CIFAR-10" in (out / "report-mix.md").read_text()
        assert (out / "models" / "lenet5.onnx").exists()
        with xr.open_dataset(out / "mix-lenet5.h5", engine="h5netcdf") as ds:
            assert ds.attrs["data"] == str(folder / "test_batch.bin")
            assert ds.attrs["samples"] == 20
            assert ds.sizes["chip"] == 2
        assert "epoch" in found.stderr
        again = self.run(folder, "--full")
        assert "epoch" not in again.stderr  # the network is there, and so is the study
        assert again.stdout == found.stdout

    def test_what_is_missing_is_named(self, folder: Path) -> None:
        assert "add --full" in self.run(folder).stderr
        (folder / "test_batch.bin").unlink()
        found = self.run(folder, "--full")
        assert found.returncode == 2
        assert "test_batch.bin is missing" in found.stderr

    def test_no_more_images_than_there_are(self, folder: Path) -> None:
        found = self.run(folder, "--full", "--images", "101")
        assert found.returncode == 2
        assert "--images 101" in found.stderr
        assert "holds 100" in found.stderr
