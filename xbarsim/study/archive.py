"""Archive: the records themselves in a study's file, beside the tables that are made from them.

Tables have no place for all that records say, such as which chips are finished where figures may be NaN. A study that
is extended takes up its chips from here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbarsim.errors import DataError
from xbarsim.study.identity import Signature
from xbarsim.study.records import ChipRecord, PointRecord

__all__ = ["Archive"]

_GROUP = "records"


@dataclass(frozen=True)
class Archive:
    """All records of a study, and what study they are of."""

    signature: Signature
    points: tuple[PointRecord, ...]
    chips: tuple[ChipRecord, ...]

    def append(self, content: io.BytesIO) -> None:
        """Add the records to an HDF5 file in memory."""
        import h5py

        with h5py.File(content, "r+") as file:
            group = file.create_group(_GROUP)
            _write_lines(group, "signature", [self.signature.to_json()])
            _write_lines(group, "points", (record.to_json() for record in self.points))
            _write_lines(group, "chips", (record.to_json() for record in self.chips))
            portraits = group.create_group("portraits")
            for record in self.points:
                picture = record.portrait_bytes()
                if picture is not None:
                    portraits.create_dataset(record.point, data=np.frombuffer(picture, np.uint8))

    @staticmethod
    def read(path: Path) -> Archive:
        """The records of a file.

        Raises
        ------
        DataError
            There are none, or they are damaged.
        """
        import h5py

        try:
            with h5py.File(path, "r") as file:
                group = file[_GROUP]
                (signature,) = _lines(group, "signature")
                points = tuple(
                    _with_portrait(PointRecord.from_json(line), group["portraits"]) for line in _lines(group, "points")
                )
                chips = tuple(ChipRecord.from_json(line) for line in _lines(group, "chips"))
                return Archive(Signature.from_json(signature), points, chips)
        except (OSError, KeyError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path}: the records of its chips are missing or damaged: {reason}") from None


def _write_lines(group: Any, name: str, lines: Iterable[str]) -> None:
    text = "\n".join(lines).encode()
    group.create_dataset(name, data=np.frombuffer(text, np.uint8), compression="gzip", fletcher32=True)


def _lines(group: Any, name: str) -> list[str]:
    return bytes(group[name][()]).decode().splitlines()


def _with_portrait(record: PointRecord, portraits: Any) -> PointRecord:
    return record.with_portrait(bytes(portraits[record.point][()])) if record.point in portraits else record
