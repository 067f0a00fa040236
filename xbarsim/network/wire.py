"""The wire format of a model file: large tensors are cut out of the message and left where they lie in the file.

A message holds what it is read from a second time, every array a third, and onnxruntime's copy of the message a fourth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from onnx import TensorProto

__all__ = ["without_large_tensors"]

_CUT_BYTES = 1 << 16

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = 7  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_RAW_DATA, _DATA_LOCATION = 9, 14  # of TensorProto


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    """Of its tag; ``content`` follows tag and length."""
    content: int
    stop: int


def without_large_tensors(content: memoryview, location: str) -> bytes:
    """The message of a model file whose large initialisers refer to the file itself, as tensors in other files do.

    Parameters
    ----------
    content
        The whole file.
    location
        Its name.

    Raises
    ------
    ValueError
        The file is no message.
    """

    def tensor(start: int, stop: int) -> bytes:
        fields = list(_fields(content, start, stop))
        raw = [item for item in fields if item.number == _RAW_DATA and item.kind == _BYTES]
        outside = any(item.number == _DATA_LOCATION for item in fields)
        if outside or len(raw) != 1 or raw[0].stop - raw[0].content <= _CUT_BYTES:
            return bytes(content[start:stop])
        (data,) = raw
        reference = TensorProto(data_location=TensorProto.EXTERNAL)
        place = {"location": location, "offset": data.content, "length": data.stop - data.content}
        for key, value in place.items():
            reference.external_data.add(key=key, value=str(value))
        added: bytes = reference.SerializeToString()
        return bytes(content[start : data.start]) + bytes(content[data.stop : stop]) + added

    def graph(start: int, stop: int) -> bytes:
        return _rewritten(content, start, stop, _INITIALIZER, tensor)

    return _rewritten(content, 0, len(content), _GRAPH, graph)


def _rewritten(content: memoryview, start: int, stop: int, number: int, rewrite: Callable[[int, int], bytes]) -> bytes:
    """A message in which all fields of one number are rewritten."""
    parts = []
    for item in _fields(content, start, stop):
        if item.number == number and item.kind == _BYTES:
            inner = rewrite(item.content, item.stop)
            parts += [_varint(number << 3 | _BYTES), _varint(len(inner)), inner]
        else:
            parts.append(bytes(content[item.start : item.stop]))
    return b"".join(parts)


def _fields(content: memoryview, start: int, stop: int) -> Iterator[_Field]:
    at = start
    while at < stop:
        begin = at
        tag, at = _read_varint(content, at, stop)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _read_varint(content, at, stop)
        elif kind == _VARINT:
            size = _read_varint(content, at, stop)[1] - at
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("an unknown kind of field")
        if size > stop - at:
            raise ValueError("a field that does not end")
        yield _Field(tag >> 3, kind, begin, at, at + size)
        at += size


def _read_varint(content: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= stop:
            break
        byte = content[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number that does not end")


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
