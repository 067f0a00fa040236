"""Figures: what an evaluation found, for each layer, each chip and all chips of a design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.cost import Cost, LayerCost
from xbarsim.faultmap import FaultCount
from xbarsim.macro import Activity
from xbarsim.metrics import Metric
from xbarsim.portrait import Portrait

__all__ = ["ChipFigures", "Evaluation", "LayerFigures"]


@dataclass(frozen=True)
class LayerFigures:
    """What happened in one layer of one chip."""

    name: str
    """Name of the layer's node."""
    tiles: int
    """Arrays."""
    cells: int
    """Cells, those of reference columns included."""
    signal_to_error_db: float
    """Power of the digital network's output over the power of the difference, over the monitored samples [dB];
    infinite where they are equal, NaN where the layer did not run. The difference includes what earlier layers
    contribute."""
    activity: Activity
    """What the converters did."""
    faults: FaultCount
    """Stuck cells, asked and injected."""
    path: str
    """How its products were computed; several where its groups differ."""
    cost: LayerCost | None = None
    """What it takes for one sample; None where the chip has no section ``cost``."""

    @property
    def adc_clip_rate(self) -> float:
        """Share of conversions beyond the ADC's range."""
        return self.activity.adc_clipped / max(1, self.activity.conversions)

    @property
    def dac_clip_rate(self) -> float:
        """Share of input values beyond the DAC's range."""
        return self.activity.dac_clipped / max(1, self.activity.inputs)


@dataclass(frozen=True, eq=False)
class ChipFigures:
    """Result of one simulated chip."""

    seed: int
    """Seed of the chip."""
    predictions: npt.NDArray[np.int32]
    """Class of each sample, -1 where scores are NaN; empty where no metric is about classes."""
    metrics: Mapping[str, float]
    """Figure of each metric, by its name."""
    signal_to_error_db: float
    """Of the network's output over the monitored samples [dB]."""
    layers: tuple[LayerFigures, ...]
    """Figures of each crossbar layer, in running order."""

    @property
    def accuracy(self) -> float:
        """Share of samples classified as labelled, the metric top-1; NaN where it was not measured."""
        return self.metrics.get("top-1", float("nan"))

    @property
    def agreement(self) -> float:
        """Share of samples classified as the digital network does; NaN where it was not measured."""
        return self.metrics.get("agreement", float("nan"))

    def with_cost(self, cost: Cost) -> ChipFigures:
        """The same with what each layer takes."""
        layers = (replace(layer, cost=one) for layer, one in zip(self.layers, cost.layers, strict=True))
        return replace(self, layers=tuple(layers))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of all chips, in the order of their seeds."""

    chip: Chip
    """The design."""
    n_samples: int
    """Samples that each chip ran."""
    monitored: int
    """Samples that were followed layer by layer."""
    dtype: str
    """Precision of the products."""
    write: int
    """Number of the write."""
    path: str
    """How products were to be computed: "auto", or the path that was forced."""
    output: str
    """The output that all figures of the network are about."""
    metrics: tuple[Metric, ...]
    """What was measured on it."""
    digital: Mapping[str, float]
    """Figures of the digital network on the same samples, for metrics that need labels."""
    chips: tuple[ChipFigures, ...]
    """Results of each chip."""
    complete: bool
    """False if the evaluation was interrupted: the chips are those that were finished."""
    portrait: Portrait | None = None
    """What the first seed's chip looks like, if asked for and finished."""

    def figures(self, metric: str) -> npt.NDArray[np.float64]:
        """A metric's figure of each chip; NaN where it was not measured."""
        return np.array([figures.metrics.get(metric, np.nan) for figures in self.chips], np.float64)

    @property
    def digital_accuracy(self) -> float:
        """Accuracy of the digital network on the same samples; NaN where it was not measured."""
        return self.digital.get("top-1", float("nan"))

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracy of each chip."""
        return self.figures("top-1")

    @property
    def agreement(self) -> npt.NDArray[np.float64]:
        """Agreement of each chip with the digital network."""
        return self.figures("agreement")
