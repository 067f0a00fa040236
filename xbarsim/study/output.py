"""Output: the file of a study, with the journal beside it.

While a study runs, the journal holds all of its records, and the file is made from them from time to time. When the
study is complete and the file stands, the journal goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

from xbarsim.errors import OutputError, StudyError
from xbarsim.files import check_output, new_file, remove_leftovers
from xbarsim.study import dataset
from xbarsim.study.archive import Archive
from xbarsim.study.identity import Plan, Signature
from xbarsim.study.journal import Journal
from xbarsim.study.records import ChipRecord, PointRecord

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Output", "check_suffix", "finished"]

_SUFFIXES = (".h5", ".hdf5")

_SAVE_SECONDS, _SAVE_SHARE = 10.0, 0.05
"""Time between two writings of the file: this much, and so much that writing takes no more than this share of it."""


class Output:
    """Where the records of a study are kept.

    Parameters
    ----------
    plan : Plan
    path : str or Path, optional
        The file; without it, records are kept in memory only.
    extend, force : bool
        As for `run`.

    Raises
    ------
    StudyError
        The path holds another study, or a smaller one and ``extend`` is not set.
    OutputError
        It cannot be written, or another study is writing to it.
    DataError
        The file or the journal is damaged.
    """

    def __init__(self, plan: Plan, path: str | Path | None, *, extend: bool = False, force: bool = False) -> None:
        self._plan = plan
        self._path = None if path is None else check_output(check_suffix(path), force=True)
        self.chips: dict[tuple[str, int], ChipRecord] = {}
        """Finished chips, by identity of the point and seed."""
        self._points: dict[str, PointRecord] = {}
        self._saved, self._pause = time.monotonic(), _SAVE_SECONDS
        self._current: xr.Dataset | None = None
        self._journal = Journal(self._path, force=force)
        try:
            if self._path is not None:
                remove_leftovers(self._path)
            self._begin(extend, force)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.close()

    def add(self, points: Iterable[PointRecord], chips: Iterable[ChipRecord]) -> None:
        """Keep records; when this returns, they are on the disk."""
        points, chips = list(points), list(chips)
        self._journal.add(points, chips)
        self._take(points, chips)
        self._current = None
        start = time.monotonic()
        if self._path is not None and start - self._saved > self._pause:
            self._write(self._built(complete=False))
            self._saved = time.monotonic()
            self._pause = max(_SAVE_SECONDS, (self._saved - start) / _SAVE_SHARE)

    def finish(self, *, complete: bool) -> xr.Dataset:
        """Write the file, if that is not there; where the study is complete, remove the journal."""
        found = self._current
        if found is None:
            found = self._built(complete=complete)
            if self._path is not None and self.chips:
                self._write(found)
        if complete:
            self._journal.remove()
        return found

    def _begin(self, extend: bool, force: bool) -> None:
        """Take up what is there, or refuse it."""
        new = self._plan.signature
        there = self._path is not None and self._path.exists()
        if force:
            self._journal.begin(new.to_json(), (), ())
            if there:  # from now on the file belongs to the journal
                self._write(self._built(complete=False))
            return
        found = dataset.read(self._path) if there and self._path is not None else None
        in_file = Archive.read(self._path) if there and self._path is not None else None
        kept = self._journal.identity
        if kept is not None:
            old, points, chips = Signature.from_json(kept), self._journal.points(), self._journal.chips()
            if in_file is not None:
                self._check_pair(in_file.chips, chips)
        elif in_file is not None:
            old, points, chips = in_file.signature, list(in_file.points), list(in_file.chips)
        else:
            old, points, chips = new, [], []
        self._check_same(old, new, chips, extend)
        if kept != new.to_json():
            self._journal.begin(new.to_json(), points if chips else (), chips)
        self._take(points, chips)
        if found is not None and kept is None and found.attrs.get("study") == self._plan.study.to_toml():
            self._current = found

    def _check_pair(self, in_file: Iterable[ChipRecord], in_journal: Iterable[ChipRecord]) -> None:
        """The file is made from the journal: whatever it holds must be there."""
        known = {(record.point, record.seed) for record in in_journal}
        if any((record.point, record.seed) not in known for record in in_file):
            raise StudyError(
                f"{self._path}: has chips that are not in {self._journal.path}; they belong to different studies: move "
                "one of them away"
            )

    def _check_same(self, old: Signature, new: Signature, chips: Iterable[ChipRecord], extend: bool) -> None:
        """Whether finished chips may be taken over."""
        chips = list(chips)
        if not chips or old.asks_for(new):
            return
        changes = old.changes(new)
        strange = sum(not new.has(record.point, record.seed) for record in chips)
        if strange:
            raise StudyError(
                f"{self._path}: holds {strange:,} finished chips that do not belong to this study: {changes}; choose "
                "another output, or begin anew: delete this one, or pass --force (in Python force=True)"
            )
        if not extend:
            raise StudyError(
                f"{self._path}: holds this study with other points or chips: {changes}; pass --extend to keep what is "
                "finished and add the rest, or choose another output"
            )

    def _take(self, points: Iterable[PointRecord], chips: Iterable[ChipRecord]) -> None:
        self.chips.update(((record.point, record.seed), record) for record in chips)
        for record in points:
            if record.point not in self._points or record.portrait is not None:
                self._points[record.point] = record

    def _built(self, *, complete: bool) -> xr.Dataset:
        plan = self._plan
        return dataset.build(
            plan.study,
            plan.keys,
            self.chips.values(),
            self._points.values(),
            {**plan.provenance, "complete": int(complete)},
        )

    def _write(self, found: xr.Dataset) -> None:
        if self._path is None:
            return
        points = (self._points[key] for key in sorted(self._points))
        chips = (self.chips[key] for key in sorted(self.chips))
        content = dataset.encoded(found)
        Archive(self._plan.signature, tuple(points), tuple(chips)).append(content)
        with new_file(self._path, force=True) as temporary:
            temporary.write_bytes(content.getbuffer())


def check_suffix(path: str | Path) -> str | Path:
    """The path, if its suffix is one of HDF5 files.

    Raises
    ------
    OutputError
        It is another one.
    """
    if str(path) and Path(path).suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{path}: figures of a study are written as HDF5; give a name with {' or '.join(_SUFFIXES)}")
    return path


def finished(plan: Plan, path: Path) -> list[ChipRecord]:
    """Chips of a study that its output or journal has; nothing is written.

    Raises
    ------
    XbarsimError
        As for `Output`.
    """
    if Journal.beside(path).exists():
        with closing(Journal(path)) as journal:
            chips = journal.chips()
    else:
        chips = list(Archive.read(path).chips) if path.exists() else []
    signature = plan.signature
    return [record for record in chips if signature.has(record.point, record.seed)]
