"""Export: a trained model as the ONNX file that `xbarsim.load` reads."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xbarsim.errors import ModelError
from xbarsim.files import new_file
from xbarsim.training.attachment import unparametrise
from xbarsim.training.onchip import is_on_chip

__all__ = ["export_onnx"]


def export_onnx(
    model: nn.Module,
    path: str | Path,
    example: Tensor | tuple[Tensor, ...],
    *,
    fold_batch_norm: bool = True,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("logits",),
    opset: int = 17,
    force: bool = False,
) -> None:
    """Write a model to an ONNX file, in evaluation mode and for any number of samples.

    Weights are those without drop-connect or simulated faults; the model itself does not change.

    Parameters
    ----------
    model
        Any module that `torch.onnx.export` can trace.
    path
        The file, usually ``.onnx``.
    example
        Inputs to trace with (of several, a tuple), the first axis counts samples.
    fold_batch_norm
        Batch norm becomes part of the convolution before it, as exporters do; or stays an operator, so that its
        statistics can be estimated anew for each chip.
    inputs, outputs
        Names of inputs and results.
    opset
        Version of ONNX's operators.
    force
        Overwrite the file.

    Raises
    ------
    ModelError
        Layers compute on a chip (`on_chip`): remove it first.
    OutputError
        The file exists, or cannot be written.
    """
    if is_on_chip(model):
        raise ModelError("layers of the model compute on a chip; remove it before the export")
    given = example if isinstance(example, tuple) else (example,)
    plain = _plain(model, given)
    mode = torch.onnx.TrainingMode.EVAL if fold_batch_norm else torch.onnx.TrainingMode.PRESERVE
    with new_file(path, force=force) as temporary, warnings.catch_warnings():
        # the exporter that needs onnx alone is called legacy, and warns of itself
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain,
            given,
            str(temporary),
            input_names=[*inputs],
            output_names=[*outputs],
            dynamic_axes={name: {0: "samples"} for name in (*inputs, *outputs)},
            opset_version=opset,
            training=mode,
            do_constant_folding=fold_batch_norm,
            dynamo=False,
        )


def _plain(model: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """A copy in evaluation mode, its weights parameters of their own."""
    plain = copy.deepcopy(model).eval()
    with torch.no_grad():
        plain(*example)  # what is projected before a forward pass is so now
    for module in [part for part in plain.modules() if parametrize.is_parametrized(part)]:
        for name in [*module.parametrizations]:  # type: ignore[union-attr,misc]
            unparametrise(module, name, leave_parametrized=True)
    return plain
