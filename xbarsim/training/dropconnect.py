"""Drop-connect: random weights are zero, others in each iteration, as on a chip whose failed cells read zero.

Wan et al., ICML 2013; as a preparation for faulty chips Xiang et al., VTS 2024 (arXiv:2404.15498).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from xbarsim.checks import check_number, check_real
from xbarsim.training.attachment import Attachment, Perturbation
from xbarsim.training.layers import Exclusion, crossbar_layers
from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

__all__ = ["DropConnect", "drop_connect"]


class DropConnect(Perturbation):
    """Sets each weight to zero with probability ``rate`` in training mode.

    The weights that are kept follow from seed, name and iteration alone, on every device, and those at a higher rate
    are a subset of those at a lower one. Dropped weights have no gradient in that iteration.

    Parameters
    ----------
    rate
        Probability that a weight is zero, in [0, 1).
    rescale
        Divide the others by ``1 - rate``, which keeps the expected weight. Chips do not do that.
    seed, name
        Name the random numbers.

    Raises
    ------
    DataError
        The rate is not in [0, 1), or the seed is no integer from 0 on.
    """

    def __init__(self, rate: float, *, rescale: bool = False, seed: int = 0, name: str = "") -> None:
        super().__init__(check_number(seed, "seed"), name)
        self.rate = check_real(rate, "rate", "a number from 0 on and below 1", lambda share: 0.0 <= share < 1.0)
        self.rescale = rescale

    def perturbed(self, weight: Tensor) -> Tensor:
        """The weight with this iteration's share of zeros."""
        if self.rate == 0.0:
            return weight
        factor = 1.0 / (1.0 - self.rate) if self.rescale else 1.0
        return weight * (self.kept(weight.shape).to(weight.device, weight.dtype) * factor)

    def kept(self, shape: Iterable[int]) -> Tensor:
        """Which weights this iteration keeps."""
        size = tuple(shape)
        u = np.empty(int(np.prod(size)))
        random.uniform(stream_key(self.seed, "drop-connect", self.name, self.iteration), u)
        return torch.from_numpy(u >= self.rate).reshape(size)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"rate={self.rate}, rescale={self.rescale}"


def drop_connect(
    model: nn.Module, rate: float, *, rescale: bool = False, exclude: Iterable[Exclusion] = (), seed: int = 0
) -> Attachment:
    """Put `DropConnect` on the layers of a model.

    Parameters
    ----------
    model
        Each forward pass in training mode draws new masks.
    rate, rescale, seed
        See `DropConnect`.
    exclude
        Layers without faults: patterns of names, or modules; see `crossbar_layers`.

    Returns
    -------
    Attachment, whose ``remove()`` leaves the plain weights.

    Examples
    --------
    >>> model = nn.Linear(4, 3)
    >>> with drop_connect(model, 0.5):
    ...     zeros = int((model.weight == 0).sum())
    >>> zeros, int((model.weight == 0).sum())
    (8, 0)
    """
    layers = crossbar_layers(model, exclude)
    return Attachment(model, layers, lambda layer: DropConnect(rate, rescale=rescale, seed=seed, name=layer.name))
