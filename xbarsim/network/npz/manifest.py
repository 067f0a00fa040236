"""Manifest: the layers of a network that is given as arrays, read and checked.

It comes as a JSON text inside of the NPZ file, as a JSON or TOML file, or as a dict. What the layers compute stands in
`nodes`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from xbarsim.errors import ModelError
from xbarsim.files import read_text
from xbarsim.network.npz.operators import OPERATORS, is_count, is_name
from xbarsim.network.npz.weights import Weights, listed

__all__ = ["INPUT", "Layer", "Manifest", "parse_json", "plain_manifest", "read_manifest"]

INPUT = "x"
"""Name of the network's input."""

_OUTPUT = "logits"
_BYTES = 10 << 20
_LAYERS = 10_000
_COMMON = ("input", "output")
"""Fields that every layer may have."""


@dataclass(frozen=True)
class Layer:
    """An operator with all its fields.

    Parameters
    ----------
    number
        Place in the manifest, from 0 on.
    op
        The operator.
    fields
        Its fields, defaults filled in.
    sources
        Numbers of the layers whose results it takes; -1 is the network's input.
    """

    number: int
    op: str
    fields: Mapping[str, Any]
    sources: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of its arrays, or its operator and number."""
        return self.fields.get("name") or f"{self.op}{self.number}"

    def __str__(self) -> str:
        name = self.fields.get("name")
        return f"layer {self.number} ({self.op}{f' {name!r}' if name else ''})"


@dataclass(frozen=True)
class Manifest:
    """The layers of a network.

    Parameters
    ----------
    origin
        Where it stands, for messages.
    input
        Shape of one sample.
    layers
        Operators in running order.
    outputs
        Number of the layer that gives each output, by the output's name.
    """

    origin: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    outputs: Mapping[str, int]

    @staticmethod
    def parse(data: Any, origin: str) -> Manifest:
        """Check a manifest.

        Raises
        ------
        ModelError
            A field or operator is missing, unknown or invalid.
        """
        if not isinstance(data, dict):
            raise ModelError(f"{origin} is not a JSON object")
        fields = ("format", "input", "layers", "outputs")
        for name in data:
            if name not in fields:
                raise ModelError(f"{origin}: unknown field {_shown(name)}; fields: {', '.join(fields)}")
        if not is_count(data.get("format"), 1) or data["format"] != 1:
            raise ModelError(f"{origin}: format is {_shown(data.get('format'))}; this version reads 1")
        shape = data.get("input")
        if not isinstance(shape, list) or not 1 <= len(shape) <= 4 or not all(is_count(size, 1) for size in shape):
            raise ModelError(
                f"{origin}: input is {_shown(shape)}; it must list 1 to 4 positive sizes, without the samples"
            )
        items = data.get("layers")
        if not isinstance(items, list) or not 1 <= len(items) <= _LAYERS:
            raise ModelError(f"{origin}: layers must be a list of 1 to {_LAYERS:,} layers")
        layers: list[Layer] = []
        tensors = {INPUT: -1}
        for number, item in enumerate(items):
            where = f"{origin}: layer {number}"
            layers.append(_layer(item, number, tensors, where))
            if "output" in item:
                name = item["output"]
                if not is_name(name) or not name or name in tensors:
                    raise ModelError(
                        f"{where}: output is {_shown(name)}; it must be a new name; taken: {listed(tensors)}"
                    )
                tensors[name] = number
        return Manifest(origin, tuple(shape), tuple(layers), _outputs(data, layers, tensors, origin))


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _layer(item: Any, number: int, tensors: Mapping[str, int], where: str) -> Layer:
    op = item.get("op") if isinstance(item, dict) else item
    if not isinstance(item, dict) or not isinstance(op, str) or op not in OPERATORS:
        raise ModelError(f"{where}: op {_shown(op)} is not known; ops: {', '.join(OPERATORS)}")
    where = f"{where} ({op})"
    fields = OPERATORS[op]
    for name, value in item.items():
        if name in ("op", *_COMMON):
            continue
        if name not in fields:
            raise ModelError(f"{where}: unknown field {_shown(name)}; fields: {', '.join((*fields, *_COMMON))}")
        if not fields[name].fits(value):
            raise ModelError(f"{where}: {name} is {_shown(value)}; it must be {fields[name].valid}")
    for name, kind in fields.items():
        if kind.required and name not in item:
            raise ModelError(f"{where}: field {name!r} is missing; it must be {kind.valid}")
    values = {name: item.get(name, kind.default) for name, kind in fields.items()}
    return Layer(number, op, values, _sources(item, op, number, tensors, where))


def _sources(item: Mapping[str, Any], op: str, number: int, tensors: Mapping[str, int], where: str) -> tuple[int, ...]:
    """Numbers of the layers that a layer reads."""
    several = op in ("add", "concat")
    if "input" not in item:
        if several:
            raise ModelError(f"{where}: field 'input' is missing; it must list two or more names: {listed(tensors)}")
        return (number - 1,)
    names = item["input"] if several else [item["input"]]
    if not isinstance(names, list) or len(names) < 1 + several:
        raise ModelError(f"{where}: input is {_shown(names)}; it must list two or more names: {listed(tensors)}")
    for name in names:
        if not isinstance(name, str) or name not in tensors:
            raise ModelError(
                f"{where}: input {_shown(name)} is no output of an earlier layer; there are: {listed(tensors)}"
            )
    return tuple(tensors[name] for name in names)


def _outputs(
    data: Mapping[str, Any], layers: Sequence[Layer], tensors: Mapping[str, int], origin: str
) -> dict[str, int]:
    """The network's outputs; every layer must lead to one."""
    outputs = {_OUTPUT: len(layers) - 1}
    if "outputs" in data:
        names, named = data["outputs"], [name for name in tensors if name != INPUT]
        known = isinstance(names, list) and all(isinstance(name, str) and name in named for name in names)
        if not known or not names or len(set(names)) < len(names):
            raise ModelError(
                f"{origin}: outputs is {_shown(names)}; it must list outputs of layers: "
                f"{listed(named) or 'none is named'}"
            )
        outputs = {name: tensors[name] for name in names}
    read = {source for layer in layers for source in layer.sources} | set(outputs.values())
    for layer in layers:
        if layer.number not in read:
            raise ModelError(f"{origin}: nothing reads what {layer} gives; name it in outputs, or as an input")
    return outputs


def plain_manifest(weights: Weights) -> Manifest:
    """The manifest of a plain perceptron: 2-D weights that chain in the file's order, ReLU between them.

    Raises
    ------
    ModelError
        The arrays are anything else.
    """
    kernel, bias = weights.part("weight"), weights.part("bias")
    names = [layer for layer, part in weights.names if part == kernel]
    for layer, part in weights.names:
        if part == bias and layer not in names:
            weights.refuse(f"array {weights.names[layer, part]!r} is a bias without a {kernel!r} beside it")
    matrices = {name: weights.arrays[weights.names[name, kernel]] for name in names}
    plain = not weights.unknown and all(part in (kernel, bias) for _, part in weights.names)
    if not plain or not all(matrix.ndim == 2 for matrix in matrices.values()):
        weights.refuse(
            "only a plain perceptron, 2-D weights and biases, needs no manifest; say what the layers are in one; "
            f"arrays: {listed(weights.arrays)}"
        )
    sizes = {name: w.shape[::-1] if weights.style == "torch" else w.shape for name, w in matrices.items()}
    for (name, (_, n_out)), (after, (n_in, _)) in pairwise(sizes.items()):
        if n_out != n_in:
            weights.refuse(
                f"weights do not chain in the file's order: {name!r} gives {n_out} values, {after!r}, which comes "
                f"next, takes {n_in}; save the arrays in the network's order, or say what the layers are in a "
                f"manifest; arrays: {listed(weights.arrays)}"
            )
    items: list[dict[str, Any]] = []
    for name in names:
        items += [{"op": "relu"}] if items else []
        items.append({"op": "linear", "name": name})
    layers = tuple(Layer(number, item.pop("op"), item, (number - 1,)) for number, item in enumerate(items))
    return Manifest(weights.origin, (sizes[names[0]][0],), layers, {_OUTPUT: len(layers) - 1})


def parse_json(text: str, origin: str) -> Any:
    """What a JSON text holds; a key that comes twice, NaN and infinities are refused.

    Raises
    ------
    ModelError
        It is not valid JSON.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError(f"a name comes twice among {listed(name for name, _ in items)}")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{origin} is not valid JSON: {str(error).splitlines()[0]}") from None


def read_manifest(manifest: Mapping[str, Any] | str | Path) -> tuple[Any, str]:
    """What a manifest holds that is given as a dict or as a JSON or TOML file, and where it comes from.

    Raises
    ------
    ModelError
        The file cannot be read, or is neither JSON nor TOML; or the dict holds more than texts, numbers and lists.
    """
    if isinstance(manifest, Mapping):
        try:
            return json.loads(json.dumps(dict(manifest))), "manifest"
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelError(f"manifest is not made of texts, numbers, lists and dicts: {error}") from None
    if not isinstance(manifest, str | Path):
        raise ModelError(f"manifest is {type(manifest).__name__}; it must be a dict, or a .json or .toml file")
    path = Path(manifest)
    suffix = path.suffix.lower()
    if suffix not in (".json", ".toml"):
        raise ModelError(f"{path}: a manifest is a .json or .toml file, not {suffix or 'without suffix'!r}")
    text = read_text(path, _BYTES, "a manifest", ModelError)
    if suffix == ".json":
        return parse_json(text, str(path)), str(path)
    try:
        return tomllib.loads(text), str(path)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not valid TOML: {str(error).splitlines()[0]}") from None
