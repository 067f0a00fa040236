"""Training: methods that prepare a network for faulty and inexact cells (needs the extra ``training``: PyTorch).

Each works on a user's own `torch.nn.Module`, on the weights of its linear and convolutional layers, and can be taken
off again. The chips are those of xbarsim itself: what training sees is what `Macro` computes.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - one clear error instead of one from every module
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError("xbarsim.training needs PyTorch: pip install 'xbarsim[training]'", name="torch") from None

from xbarsim.training.admm import Admm
from xbarsim.training.attachment import Attachment, Perturbation
from xbarsim.training.batchnorm import recalibrate_batch_norm, recalibrated
from xbarsim.training.clipping import FixedClip, clip_weights
from xbarsim.training.dropconnect import DropConnect, drop_connect
from xbarsim.training.export import export_onnx
from xbarsim.training.layers import CrossbarLayer, Layout, crossbar_layers
from xbarsim.training.onchip import OnChip, on_chip
from xbarsim.training.pruning import GradualPruning, Masks, cubic_ratio, prune, prune_gradually
from xbarsim.training.search import RatioCandidate, RatioSearch, search_ratio, tolerated_rate
from xbarsim.training.stuck import StuckAtAware, stuck_at_aware

__all__ = [
    "Admm",
    "Attachment",
    "CrossbarLayer",
    "DropConnect",
    "FixedClip",
    "GradualPruning",
    "Layout",
    "Masks",
    "OnChip",
    "Perturbation",
    "RatioCandidate",
    "RatioSearch",
    "StuckAtAware",
    "clip_weights",
    "crossbar_layers",
    "cubic_ratio",
    "drop_connect",
    "export_onnx",
    "on_chip",
    "prune",
    "prune_gradually",
    "recalibrate_batch_norm",
    "recalibrated",
    "search_ratio",
    "stuck_at_aware",
    "tolerated_rate",
]
