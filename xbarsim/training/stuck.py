"""Stuck-at-aware training: weights become what the faulty cells of a chip would realise.

The cells are xbarsim's own, from the mapping over errors and faults to the wires, so that a layer in training computes
with `Macro.weights` of the same chip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xbarsim.checks import check_number
from xbarsim.chip import Chip
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import FaultMap
from xbarsim.replica import realised
from xbarsim.training.attachment import Attachment, Perturbation
from xbarsim.training.layers import CrossbarLayer, Exclusion, Layout, crossbar_layers
from xbarsim_kernels.keys import stream_key

__all__ = ["StuckAtAware", "check_chip", "chip_names", "group_names", "stuck_at_aware"]

Array = npt.NDArray[np.float64]


class StuckAtAware(Perturbation):
    """Replaces a weight by the one that the cells of a simulated chip realise, in training mode.

    Gradients pass straight through: those of the realised weight are taken for those of the weight (Bengio et al.,
    2013, arXiv:1308.3432). The full scale is that of the present weights (`Mapping.full_scale`), as on a chip that is
    programmed with them.

    Parameters
    ----------
    chip
        Mapping, levels, errors, faults, repair, copies, wires. Converters and read noise act on products, not on
        weights, and do nothing here; see `on_chip`.
    layout
        Where the weight tensor holds its matrices.
    redraw
        A new chip in each iteration; or, if false, the chip that ``seed`` names in all.
    seed, name
        The chip, and the layer on it: with ``redraw=False`` those of ``Macro(..., seed=seed, layer=name)``.
    faults
        Stuck cells to apply instead of drawing them, as `Macro` takes them.
    """

    def __init__(
        self,
        chip: Chip,
        *,
        layout: Layout | None = None,
        redraw: bool = True,
        seed: int = 0,
        name: str = "macro",
        faults: FaultMap | None = None,
    ) -> None:
        super().__init__(check_number(seed, "seed"), name)
        self.layout = layout or Layout()
        check_chip(chip, name, self.layout)
        if faults is None and chip.faults.map is not None:
            faults = FaultMap.load(chip.faults.map)
        self.chip, self.redraw, self.faults = chip, redraw, faults

    def perturbed(self, weight: Tensor) -> Tensor:
        """The weight that this iteration's chip realises."""
        matrices = self.layout.matrices(weight.detach()).to("cpu", torch.float64).numpy()
        names = group_names(self.name, len(matrices))
        found = np.stack([self._realised(matrix, name) for matrix, name in zip(matrices, names, strict=True)])
        realised = self.layout.restored(torch.from_numpy(found), weight.shape)
        return _passed(weight, realised.to(weight.device, weight.dtype))

    @property
    def chip_seed(self) -> int:
        """Names this iteration's chip."""
        return int(stream_key(self.seed, "chip", self.iteration)) if self.redraw else self.seed

    def _realised(self, weights: Array, name: str) -> Array:
        return realised(weights, self.chip, seed=self.chip_seed, layer=name, faults=self.faults)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"chip={self.chip.name!r}, mapping={self.chip.mapping.kind!r}, redraw={self.redraw}"


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, realised: Tensor) -> Tensor:
        return realised.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _passed(weight: Tensor, realised: Tensor) -> Tensor:
    passed: Tensor = _StraightThrough.apply(weight, realised)
    return passed


def group_names(name: str, groups: int) -> list[str]:
    """What the matrices of a layer are called on a chip."""
    return [name] if groups == 1 else [f"{name}/{group}" for group in range(groups)]


def chip_names(layers: Iterable[str], names: Mapping[str, str] | None) -> dict[str, str]:
    """Layers' names on the chip: their own, or those that are given.

    Raises
    ------
    DataError
        A name is given to what is no layer.
    """
    known, given = list(layers), dict(names or {})
    stray = next((name for name in given if name not in known), None)
    if stray is not None:
        raise DataError(f"names: {stray!r} is no layer; layers are {', '.join(known)}")
    return {name: given.get(name, name) for name in known}


def check_chip(chip: Chip, name: str, layout: Layout) -> None:
    """Whether a layer can be trained for a chip.

    Raises
    ------
    ChipError
        It is not a chip, or packs the layer's groups into shared arrays.
    """
    if not isinstance(chip, Chip):
        raise ChipError(f"chip = {chip!r} is not a Chip; use Chip.load")
    if layout.groups > 1 and chip.mapping.groups == "packed":
        raise ChipError(
            f"layer {name!r}: training takes an array for each group; set mapping.groups = 'separate', or exclude it"
        )


def stuck_at_aware(
    model: nn.Module,
    chip: Chip,
    *,
    redraw: bool = True,
    exclude: Iterable[Exclusion] = (),
    seed: int = 0,
    faults: FaultMap | None = None,
    names: Mapping[str, str] | None = None,
) -> Attachment:
    """Put `StuckAtAware` on the layers of a model.

    Parameters
    ----------
    model
        Each forward pass in training mode draws a new chip, unless ``redraw`` is false.
    chip, redraw, seed, faults
        See `StuckAtAware`. Layers that ``chip.placement`` keeps digital are left alone.
    exclude
        Layers without faults: patterns of names, or modules; see `crossbar_layers`.
    names
        What layers are called on the chip, and in ``faults``, where it is not their name in the model: in an ONNX
        file they are called as its nodes.

    Returns
    -------
    Attachment, whose ``remove()`` leaves the plain weights.

    Examples
    --------
    >>> model = nn.Linear(4, 3)
    >>> chip = Chip.load("ideal").replace({"mapping.kind": "differential", "faults.p_stuck_on": 0.1})
    >>> attached = stuck_at_aware(model, chip)
    >>> loss = model(torch.ones(1, 4)).sum()  # and train as usual
    >>> attached.remove()
    """
    layers = crossbar_layers(model, exclude, chip.placement if isinstance(chip, Chip) else ())
    called = chip_names(layers, names)

    def make(layer: CrossbarLayer) -> StuckAtAware:
        name = called[layer.name]
        return StuckAtAware(chip, layout=layer.layout, redraw=redraw, seed=seed, name=name, faults=faults)

    return Attachment(model, layers, make)
