"""Clipping: large weights are limited, so that the full scale is not that of a few.

The share of faults that a network tolerates grows with ``(rms w / max w)^2``. The bound is found once: if it followed
the weights' rms while these are trained, it would shrink with them, and pruned layers would collapse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from xbarsim.checks import check_real
from xbarsim.training.attachment import Projection
from xbarsim.training.layers import CrossbarLayer, Exclusion, crossbar_layers

__all__ = ["FixedClip", "clip_weights"]


class FixedClip(Projection):
    """Keeps the weights of each layer within a bound that does not change.

    Attributes
    ----------
    bounds : largest magnitude of each layer, by name
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, CrossbarLayer], bounds: Mapping[str, float]) -> None:
        self.bounds = dict(bounds)
        super().__init__(model, layers)
        self.apply()

    def _project(self, name: str, weight: Tensor) -> None:
        weight.clamp_(-self.bounds[name], self.bounds[name])


def clip_weights(model: nn.Module, multiple: float, *, exclude: Iterable[Exclusion] = ()) -> FixedClip:
    """Keep the weights of each layer within a multiple of the root mean square that they have now.

    Parameters
    ----------
    model
        Its weights are clipped at once, and before each forward pass.
    multiple
        Bound in units of the rms of the layer's nonzero weights, as in `RmsClip`; some 2 to 4.
    exclude
        Layers to leave alone: patterns of names, or modules; see `crossbar_layers`.

    Raises
    ------
    DataError
        The multiple is not positive.

    Examples
    --------
    >>> model = nn.Linear(100, 10)
    >>> clip = clip_weights(model, 1.5)
    >>> bool(model.weight.abs().max() == clip.bounds[""])
    True
    """
    multiple = check_real(multiple, "multiple", "a positive number", lambda number: number > 0.0)
    layers = crossbar_layers(model, exclude)
    return FixedClip(model, layers, {name: multiple * _rms(layer.parameter.detach()) for name, layer in layers.items()})


def _rms(weight: Tensor) -> float:
    values = weight.double()
    return float((values.square().sum() / max(1, int(values.count_nonzero()))).sqrt())
