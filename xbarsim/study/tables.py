"""Tables: records of chips laid out along the dimensions of their study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.results import LAYER_FIGURES
from xbarsim.study.records import ChipRecord, PointRecord
from xbarsim.study.settings import text_of
from xbarsim.study.study import Study

__all__ = ["Tables"]

Variable = tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]


class Tables:
    """Records of a study, and the arrays that they make.

    Parameters
    ----------
    study
        The study.
    keys
        Identity of each point; points of one identity share their records.
    records
        Finished chips, in any order.

    Raises
    ------
    DataError
        A record is of no point of the study, or of another seed.
    """

    def __init__(self, study: Study, keys: Sequence[str], records: Sequence[ChipRecord]) -> None:
        self.study = study
        self.places: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            self.places.setdefault(key, []).append(index)
        for record in records:
            if record.point not in self.places or record.seed not in study.seeds:
                what = f"chip {record.seed} of point {record.point[:12]}"
                raise DataError(f"{what} does not belong to study {study.name!r}")
        self.records = sorted(records, key=lambda record: (self.places[record.point][0], record.seed))
        of = [(place, number) for number, one in enumerate(self.records) for place in self.places[one.point]]
        self._rows, self._which = np.array(of, np.int64).reshape(-1, 2).T
        self._columns = np.array([one.seed - study.seed for one in self.records], np.int64)[self._which]
        self._models = [text_of(study.points[self.places[one.point][0]].model) for one in self.records]
        self.layers, self._layer_of = self._name_layers()

    def finished(self) -> Variable:
        """Number of chips of each point."""
        counts = np.bincount(self._rows, minlength=len(self.study.points)).astype(np.int64)
        return self.study.dims, counts.reshape(self.study.shape), {"units": "1", "long_name": "finished chips"}

    def of_chips(self, values: Sequence[float], attrs: Mapping[str, Any]) -> Variable:
        """A figure of each record."""
        return (*self._spread(np.array(values, np.float64)), dict(attrs))

    def of_points(self, records: Mapping[str, PointRecord], name: str, attrs: Mapping[str, Any]) -> Variable:
        """A figure of the digital network of each point."""
        table = np.full(len(self.study.points), np.nan)
        for key, record in records.items():
            table[self.places[key]] = record.digital.get(name, np.nan)
        return self.study.dims, table.reshape(self.study.shape), dict(attrs)

    def of_layers(self) -> Iterator[tuple[str, Variable]]:
        """All figures of layers, by the names of their variables."""
        shape = (len(self.records), len(self.layers))
        for figure, (unit, _) in LAYER_FIGURES.items():
            table = np.full(shape, np.nan)
            for number, record in enumerate(self.records):
                for name, figures in record.layers.items():
                    table[number, self._slot(number, name)] = figures.get(figure, np.nan)
            attrs = {"units": unit, "long_name": figure.replace("_", " ")}
            yield f"layer_{figure}", (*self._spread(table, "layer"), attrs)
        yield "layer_path", self._paths()

    def _spread(self, table: npt.NDArray[Any], *further: str) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        study = self.study
        whole = np.full((len(study.points), study.chips, *table.shape[1:]), np.nan)
        whole[self._rows, self._columns] = table[self._which]
        return (*study.dims, "chip", *further), whole.reshape(*study.shape, study.chips, *table.shape[1:])

    def _paths(self) -> Variable:
        found: dict[tuple[int, int], dict[str, None]] = {}
        for number, record in enumerate(self.records):
            for name, figures in record.layers.items():
                for place in self.places[record.point]:
                    slot = (place, self._slot(number, name))
                    found.setdefault(slot, {})[str(figures.get("path", ""))] = None
        table = np.full((len(self.study.points), len(self.layers)), "", object)
        for slot, paths in found.items():
            table[slot] = ", ".join(paths)
        attrs = {"long_name": "how products were computed"}
        return (*self.study.dims, "layer"), table.reshape(*self.study.shape, len(self.layers)), attrs

    def _slot(self, number: int, name: str) -> int:
        return self._layer_of[self._models[number], name]

    def _name_layers(self) -> tuple[list[str], dict[tuple[str, str], int]]:
        """Names of all layers, and where each model's are among them.

        Models whose layers have the same names share them. Where others have a name in common, it is told apart by the
        model's.
        """
        of_model: dict[str, dict[str, None]] = {}
        for model, record in zip(self._models, self.records, strict=True):
            of_model.setdefault(model, {}).update(dict.fromkeys(record.layers))
        families: dict[frozenset[str], str] = {}
        for model, names in of_model.items():
            families.setdefault(frozenset(names), model)
        slots: dict[str, int] = {}
        layer_of = {}
        for model, names in of_model.items():
            own = frozenset(names)
            others = set().union(*(family for family in families if family != own))
            for name in names:
                shown = f"{families[own]}: {name}" if name in others else name
                layer_of[model, name] = slots.setdefault(shown, len(slots))
        return list(slots), layer_of
