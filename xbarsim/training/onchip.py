"""On chip: layers compute with the products of a simulated chip, converters and read noise included.

The forward pass is `Macro`'s own arithmetic; the backward pass is that of the plain layer at the same inputs and
weights, so that gradients pass straight through whatever the chip does to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from xbarsim.checks import check_number
from xbarsim.chip import Chip
from xbarsim.correction import Statistics
from xbarsim.errors import DataError
from xbarsim.faultmap import FaultMap
from xbarsim.macro import Macro, Ranges
from xbarsim.training.attachment import Attached, uncompiled
from xbarsim.training.layers import CrossbarLayer, Exclusion, crossbar_layers
from xbarsim.training.stuck import check_chip, chip_names, group_names
from xbarsim.training.windows import axes, columns
from xbarsim_kernels.keys import stream_key

__all__ = ["OnChip", "is_on_chip", "on_chip"]

Plain: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None], Tensor]"
"""(x, weight, bias) -> what a layer computes without a chip."""


class _Product(torch.autograd.Function):
    """Forward as the chip computes, backward as the plain layer does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: _ChipLayer) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.plain = layer.plain
        return layer.product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given = [None if part is None else part.detach().requires_grad_(need)
                 for part, need in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)]  # fmt: skip
        wanted = [part for part in given if part is not None and part.requires_grad]
        with torch.enable_grad():
            found = iter(torch.autograd.grad(ctx.plain(*given), wanted, gradient))
        return *(next(found) if part is not None and part.requires_grad else None for part in given), None


class _ChipLayer:
    """One layer on the chip of the present iteration; stands in for its module's ``forward``."""

    def __init__(self, layer: CrossbarLayer, name: str, owner: OnChip) -> None:
        check_chip(owner.chip, layer.name, layer.layout)
        if layer.layout.transposed:
            raise DataError(f"layer {layer.name!r}: transposed convolutions do not train on chips; exclude it")
        self.layer, self.owner = layer, owner
        self.ranges: list[Ranges] | None = None
        self.names = group_names(name, layer.layout.groups)
        self._module: Any = layer.module
        self._axes = [] if isinstance(layer.module, nn.Linear) else axes(layer.module)
        self.plain: Plain = self._convolved if self._axes else functional.linear
        self._macros: list[Macro] = []
        self._written: tuple[Any, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's result on the chip."""
        weight = self._module.weight
        lone = bool(self._axes) and x.ndim == len(self._axes) + 1
        given = (x[None] if lone else x).to(weight.dtype)
        result: Tensor = uncompiled(_Product.apply)(given, weight, self._module.bias, self)
        return result[0] if lone else result

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Products of a batch, with the bias, which is added digitally."""
        macros = self._programmed(weight)
        given = x.detach().to("cpu", torch.float64 if macros[0].dtype == np.float64 else torch.float32)
        found = []
        for group, macro in enumerate(macros):
            levels = torch.from_numpy(macro.quantise(self._part(given, group).numpy()))
            panel = self._columns(levels, macro.zero_level)
            each = max(1, panel.shape[1] // max(1, len(x)))
            visit = self.owner.visit(self._module)
            found.append(macro.multiply(panel, self.owner.first_sample * each, each, visit))
            found[-1] *= self.owner.chip.correction_factor
        y = torch.from_numpy(np.concatenate(found).T)
        y = y if bias is None else y + bias.detach().to("cpu", y.dtype)
        if self._axes:
            sizes = [axis.places(size) for axis, size in zip(self._axes, x.shape[2:], strict=True)]
            y = y.reshape(len(x), *sizes, y.shape[1]).movedim(-1, 1)
        else:
            y = y.reshape(*x.shape[:-1], y.shape[1])
        return y.to(x.device, x.dtype).contiguous()

    def measured(self, inputs: Sequence[Tensor]) -> list[Ranges]:
        """Ranges of converters, from inputs of the layer."""
        chip, matrices = self.owner.chip, self._matrices(self._module.weight)
        return [Ranges.measure(matrix, chip, self._chunks(inputs, group)) for group, matrix in enumerate(matrices)]

    def _chunks(self, inputs: Sequence[Tensor], group: int) -> Callable[[], Iterable[npt.NDArray[Any]]]:
        return lambda: (self._columns(self._part(x, group), 0.0) for x in inputs)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = self._module._conv_forward(x, weight, bias)
        return result

    def _part(self, x: Tensor, group: int) -> Tensor:
        return x.chunk(self.layer.layout.groups, dim=1)[group] if self._axes else x

    def _columns(self, x: Tensor, padding: float) -> npt.NDArray[Any]:
        if self._axes:
            return columns(x, self._axes, self._module.padding_mode, padding)
        found: npt.NDArray[Any] = x.reshape(-1, x.shape[-1]).T.contiguous().numpy()
        return found

    def _matrices(self, weight: Tensor) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = self.layer.layout.matrices(weight.detach()).to("cpu", torch.float64).numpy()
        return found

    def _programmed(self, weight: Tensor) -> list[Macro]:
        """The matrices on the chip, written again where the weight, the ranges or the chip are others."""
        owner, seed = self.owner, self.owner.seed_of(self._module)
        if not (self._written and self._written[1:] == (seed, self.ranges) and torch.equal(self._written[0], weight)):
            dtype = np.float64 if weight.dtype == torch.float64 else np.float32
            known = self.ranges or itertools.repeat(None)
            self._macros = [
                Macro(matrix, owner.chip, seed=seed, layer=name, ranges=ranges, dtype=dtype, faults=owner.faults)
                for matrix, name, ranges in zip(self._matrices(weight), self.names, known, strict=False)
            ]
            self._written = (weight.detach().clone(), seed, self.ranges)
        return self._macros


class OnChip(Attached):
    """Layers of a model that compute with the products of a simulated chip.

    In evaluation mode it is the chip that ``seed`` names. In training mode each iteration has a chip and noise of its
    own, or, without ``redraw``, noise of its own.

    Attributes
    ----------
    first_sample : number of the first sample of a batch in evaluation mode, which names its read noise
    iteration : number of forward passes in training mode so far, which name chips and read noise: one that is set to
        that of a checkpoint goes on with the chips that training would have had
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, CrossbarLayer],
        chip: Chip,
        *,
        redraw: bool,
        seed: int,
        faults: FaultMap | None,
        names: Mapping[str, str],
    ) -> None:
        self.chip, self.redraw, self.seed, self.faults = chip, redraw, check_number(seed, "seed"), faults
        self.iteration, self.first_sample = 0, 0
        self._parts = {name: _ChipLayer(layer, names[name], self) for name, layer in layers.items()}
        for part in self._parts.values():
            if "forward" in vars(part.layer.module):
                raise DataError(f"layer {part.layer.name!r} has a forward of its own: is it on a chip already?")
        super().__init__(model, layers)
        for part in self._parts.values():
            part.layer.module.forward = part

    def _begin(self, training: bool) -> None:
        if any(layer.module.training for layer in self.layers.values()):
            self.iteration += 1

    def visit(self, module: nn.Module) -> int:
        """Names this iteration's read noise."""
        return self.iteration if module.training else 0

    def seed_of(self, module: nn.Module) -> int:
        """Names this iteration's chip."""
        redrawn = self.redraw and module.training
        return int(stream_key(self.seed, "chip", self.iteration)) if redrawn else self.seed

    def calibrate(self, *inputs: Tensor) -> None:
        """Find the ranges of converters anew, from inputs of the model and with its present weights.

        Chips keep the ranges of their design: those that training began with, unless this is called.
        """
        seen: dict[str, list[Tensor]] = {name: [] for name in self._parts}

        def watch(name: str, x: Tensor) -> Tensor:
            part, module = self._parts[name], cast("Any", self.layers[name].module)
            seen[name].append(x.detach().cpu())
            return part.plain(x, module.weight, module.bias)

        modes = {part: part.training for part in self._model.modules()}
        for name, part in self._parts.items():
            part.layer.module.forward = partial(watch, name)
        try:
            with torch.no_grad():
                self._model.eval()(*inputs)
        finally:
            for module, mode in modes.items():
                module.training = mode
            for part in self._parts.values():
                part.layer.module.forward = part
        for name, part in self._parts.items():
            if not seen[name]:
                raise DataError(f"calibration does not reach layer {name!r}; exclude it, or give other inputs")
            part.ranges = part.measured(seen[name])

    def remove(self) -> None:
        """Let the layers compute as before."""
        super().remove()
        for part in self._parts.values():
            if vars(part.layer.module).get("forward") is part:
                del part.layer.module.forward


def on_chip(
    model: nn.Module,
    chip: Chip,
    *,
    calibration: Tensor | tuple[Tensor, ...] | None = None,
    redraw: bool = True,
    exclude: Iterable[Exclusion] = (),
    seed: int = 0,
    faults: FaultMap | None = None,
    names: Mapping[str, str] | None = None,
) -> OnChip:
    """Let the layers of a model compute with the products of a simulated chip.

    Parameters
    ----------
    model
        Whose gradients are those of the plain layers. Products are computed on the CPU.
    chip
        The chip. Layers that ``chip.placement`` keeps digital compute as before.
    calibration
        Inputs of the model (of several, a tuple), from which ranges of converters are found; needed unless converters
        are ideal and cells are linear. See `OnChip.calibrate`.
    redraw
        In training mode each iteration has a chip of its own; or, if false, the one that ``seed`` names.
    exclude
        Layers that stay digital: patterns of names, or modules; see `crossbar_layers`.
    seed
        The chip: that of ``Macro(..., seed=seed, layer=name)``, in training mode the first of many.
    faults
        Stuck cells to apply instead of drawing them, as `Macro` takes them.
    names
        What layers are called on the chip, and in ``faults``, where it is not their name in the model.

    Returns
    -------
    OnChip, whose ``remove()`` lets the layers compute as before.

    Raises
    ------
    DataError
        Calibration is missing, a layer is a transposed convolution, or the chip corrects by statistics: here batch norm
        does (`recalibrated`).

    Examples
    --------
    >>> model, x = nn.Linear(8, 3), torch.rand(5, 8)
    >>> chip = Chip.load("ideal").replace({"dac.bits": 8, "adc.bits": 8, "faults.p_stuck_on": 0.02})
    >>> attached = on_chip(model, chip, calibration=x)
    >>> loss = model(x).sum()  # and train as usual
    >>> attached.remove()
    """
    layers = crossbar_layers(model, exclude, chip.placement if isinstance(chip, Chip) else ())
    called = chip_names(layers, names)
    if isinstance(chip, Chip) and isinstance(chip.correction, Statistics):
        raise DataError("correction.kind = 'statistics' is for trained networks; here recalibrate batch norm instead")
    if faults is not None and isinstance(chip, Chip):
        chip.check_given_faults()
    if calibration is None and isinstance(chip, Chip) and chip.needs_ranges:
        raise DataError("calibration is missing: the chip's converters or nonlinear cells need ranges")
    found = OnChip(model, layers, chip, redraw=redraw, seed=seed, faults=faults, names=called)
    if calibration is not None:
        try:
            found.calibrate(*(calibration if isinstance(calibration, tuple) else (calibration,)))
        except BaseException:
            found.remove()
            raise
    return found


def is_on_chip(model: nn.Module) -> bool:
    """Whether a layer of the model computes on a chip."""
    return any(isinstance(vars(module).get("forward"), _ChipLayer) for module in model.modules())
