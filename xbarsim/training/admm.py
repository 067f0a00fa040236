"""ADMM pruning: training finds weights that lose little when most of them become zero.

Zhang et al., "A systematic DNN weight pruning framework using alternating direction method of multipliers", ECCV 2018
(arXiv:1804.03294). The loss is minimised subject to at most so many nonzero weights in each layer: weights W are
trained towards their sparse copies Z, and the duals U sum up how far they still are apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from xbarsim.checks import check_real
from xbarsim.training.layers import Exclusion, crossbar_layers
from xbarsim.training.pruning import Masks, Ratio, check_ratio, check_state, kept_weights, largest

__all__ = ["Admm"]


class Admm:
    """Pruning by the alternating direction method of multipliers.

    Add `penalty` to the loss (the W update), call `update` after some epochs (Z and U), and `finish` at the end.

    Parameters
    ----------
    model
        Its weights are trained by the user's own optimiser.
    ratio
        Share of zeros that each layer shall have: a number, or one for each layer by name.
    rho
        Strength of the pull towards sparse weights. A weight of 1e-3 to 1e-2 is usual; the larger, the sooner W and Z
        agree, and the less the loss counts.
    exclude
        Layers that stay dense: patterns of names, or modules; see `crossbar_layers`.

    Raises
    ------
    DataError
        A ratio is not from 0 to 1, or rho is not positive.

    Examples
    --------
    >>> model = nn.Linear(10, 1)
    >>> admm = Admm(model, 0.8)
    >>> loss = model(torch.ones(1, 10)).sum() + admm.penalty()  # in each iteration
    >>> admm.update()  # after each epoch
    >>> masks = admm.finish()  # before the last epochs
    >>> int((model.weight == 0).sum())
    8
    """

    def __init__(self, model: nn.Module, ratio: Ratio, *, rho: float = 1e-3, exclude: Iterable[Exclusion] = ()) -> None:
        rho = check_real(rho, "rho", "a positive number", lambda number: number > 0.0)
        self.layers = crossbar_layers(model, exclude)
        self.ratio, self.rho, self._model = check_ratio(ratio, self.layers), rho, model
        self._dual = {name: torch.zeros_like(weight) for name, weight in self._weights().items()}
        self._sparse = self._nearest()

    def penalty(self) -> Tensor:
        """``rho/2 sum |W - Z + U|^2``, to be added to the loss."""
        parts = [
            (layer.parameter - self._sparse[name] + self._dual[name]).square().sum()
            for name, layer in self.layers.items()
        ]
        return 0.5 * self.rho * torch.stack(parts).sum()

    def update(self) -> None:
        """Z becomes the sparse weights nearest to W + U, and U grows by W - Z."""
        self._sparse = self._nearest()
        for name, weight in self._weights().items():
            self._dual[name] += weight - self._sparse[name]

    def residual(self) -> float:
        """``|W - Z| / |W|``: what pruning would still change."""
        weights = self._weights()
        apart = sum(float((weight - self._sparse[name]).square().sum()) for name, weight in weights.items())
        whole = sum(float(weight.square().sum()) for weight in weights.values())
        return (apart / whole) ** 0.5 if whole else 0.0

    def finish(self) -> Masks:
        """Prune the weights to the ratio, and keep them so: what is left is trained on with fixed masks."""
        return Masks(self._model, self.layers, kept_weights(self.layers, self.ratio))

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Sparse copies Z and duals U by layer, for the checkpoint of a training that may be interrupted."""
        return {"sparse": dict(self._sparse), "dual": {name: dual.clone() for name, dual in self._dual.items()}}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from what `state_dict` gave, with the weights of the same moment.

        Raises
        ------
        DataError
            It is of other layers, or of layers of other shapes.
        """
        weights = self._weights()
        for part in ("sparse", "dual"):
            check_state(state, part, self.layers)
        self._sparse, self._dual = (
            {name: state[part][name].detach().to(weight, copy=True) for name, weight in weights.items()}
            for part in ("sparse", "dual")
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: layer.parameter.detach() for name, layer in self.layers.items()}

    def _nearest(self) -> dict[str, Tensor]:
        wanted = {name: weight + self._dual[name] for name, weight in self._weights().items()}
        masks = largest(wanted, self.ratio, "layer")
        return {name: values * masks[name] for name, values in wanted.items()}
