"""Comparison: one chip's results against the digital network's, gathered batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.faultmap import FaultCount
from xbarsim.figures import ChipFigures, LayerFigures
from xbarsim.reference import Reference, Tally, power

if TYPE_CHECKING:
    from xbarsim.network import ProgrammedNetwork

__all__ = ["Comparison"]


class Comparison:
    """What the results of one chip amount to.

    Parameters
    ----------
    reference : what the chip is compared with
    chip : the chip, all of whose activity is that of the compared samples
    """

    def __init__(self, reference: Reference, chip: ProgrammedNetwork) -> None:
        self._reference, self._chip = reference, chip
        self._tally = Tally(reference.metrics, reference.data)
        self._errors: dict[str, list[float]] = {name: [] for name in (*reference.names, reference.output)}

    def add(self, start: int, end: int, feeds: dict[str, Any], found: dict[str, Any]) -> None:
        """Take what the chip made of the samples from ``start`` to ``end``: the output, and layers of monitored ones.

        Samples are monitored all or none (`batches`).

        Raises
        ------
        DataError
            The chip's output has another shape than the digital network's.
        """
        reference, output = self._reference, self._reference.output
        watched = start < reference.monitored
        wanted = {name: found[name] for name in self._errors if name in found}
        result = reference.by_sample(wanted, feeds, end - start)
        digital = reference.part(start, end)
        if digital.shape != result[output].shape:
            shapes = f"{list(result[output].shape)} on the chip and {list(digital.shape)} in the digital network"
            raise DataError(f"output {output!r} has shape {shapes}: they cannot be compared; choose another output")
        for name, errors in self._errors.items() if watched else ():
            exact = digital if name == output else reference.layers[name][start:end]
            errors += _errors(exact, result.get(name))
        self._tally.add(start, result[output], digital)

    def figures(self) -> ChipFigures:
        """The chip's figures."""
        reference, chip = self._reference, self._chip
        activity = chip.activity
        layers = tuple(
            LayerFigures(
                name,
                sum(macro.n_tiles for macro in macros),
                sum(macro.n_cells for macro in macros),
                self._decibel(name),
                activity[name],
                sum((macro.faults.count() for macro in macros), FaultCount()),
                ", ".join(dict.fromkeys(macro.path for macro in macros)),
            )
            for name, macros in chip.layers.items()
        )
        metrics = self._tally.figures(reference.part)
        return ChipFigures(chip.seed, self._tally.predictions, metrics, self._decibel(reference.output), layers)

    def _decibel(self, name: str) -> float:
        """Signal over error of a layer, or the output [dB]; NaN where it was not followed, or never ran."""
        errors, signal = self._errors.get(name), self._reference.signal.get(name)
        if not errors or signal is None:
            return float("nan")
        error = sum(errors)
        if error == 0.0:
            return float("inf")
        return float(10.0 * np.log10(signal / error)) if signal > 0.0 else float("-inf")


def _errors(exact: Any, found: npt.NDArray[Any] | None) -> list[float]:
    """Power of the difference for each sample: sums must not depend on how the data are cut."""
    if found is not None and found.size and len({one.shape for one in exact} | {found.shape[1:]}) == 1:
        return power(np.asarray(exact), found[: len(exact)])
    errors = []
    for number, one in enumerate(exact):
        if not one.size:  # a layer of a branch that was not taken
            continue
        # the chip may have taken another branch, or other numbers of turns
        other = None if found is None or number >= len(found) else found[number]
        same = other is not None and other.shape == one.shape
        errors += power(one[np.newaxis], other[np.newaxis]) if same and other is not None else [float("nan")]
    return errors
