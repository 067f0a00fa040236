"""Windows: what each output of a convolution sees of its input, as columns of a matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Axis", "axes", "columns"]


@dataclass(frozen=True)
class Axis:
    """A convolution along one axis: its kernel and how it goes over the input."""

    kernel: int
    stride: int
    dilation: int
    before: int
    """Padding before the first place."""
    after: int
    """Padding behind the last place."""

    @property
    def span(self) -> int:
        """Places from the kernel's first to its last weight."""
        return (self.kernel - 1) * self.dilation + 1

    def places(self, size: int) -> int:
        """Outputs along an axis of this size."""
        return (size + self.before + self.after - self.span) // self.stride + 1


def axes(convolution: nn.Module) -> list[Axis]:
    """The axes of a convolution (`torch.nn.Conv1d`, ...)."""
    given: Any = convolution
    found = []
    for number, (kernel, stride, dilation) in enumerate(
        zip(given.kernel_size, given.stride, given.dilation, strict=True)
    ):
        total = dilation * (kernel - 1)
        if isinstance(given.padding, str):
            before, after = (total // 2, total - total // 2) if given.padding == "same" else (0, 0)
        else:
            before = after = given.padding[number]
        found.append(Axis(kernel, stride, dilation, before, after))
    return found


def columns(x: Tensor, over: Sequence[Axis], mode: str, padding: float) -> npt.NDArray[Any]:
    """Windows of x (samples, channels, sizes) as columns (inputs, vectors).

    Parameters
    ----------
    x
        Input, or the levels that stand for it.
    over
        One for each size.
    mode
        "zeros" pads with ``padding``, the level of zero; others as `torch.nn.functional.pad` has them.
    padding
        The level that stands for zero.

    Returns
    -------
    Array, inputs in the order channel, kernel, vectors in the order sample, place.
    """
    pads = [count for axis in reversed(over) for count in (axis.before, axis.after)]
    # other modes want every axis to be padded, zeros do not mind
    framed = functional.pad(x, pads, value=padding) if mode == "zeros" else functional.pad(x, pads, mode=mode)
    for number, axis in enumerate(over, 2):
        framed = framed.unfold(number, axis.span, axis.stride)[..., :: axis.dilation]
    rank = len(over)
    ordered = framed.permute(1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
    inputs = x.shape[1]
    for axis in over:
        inputs *= axis.kernel
    found: npt.NDArray[Any] = ordered.reshape(inputs, -1).contiguous().numpy()
    return found
