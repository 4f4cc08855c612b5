"""Messages of ONNX's protobuf format, as far as a graph needs them.

Source: onnx.proto3 (github.com/onnx/onnx); protobuf's encoding (protobuf.dev/programming-guides/encoding).
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

FLOAT, INT8, INT64, FLOAT16, BFLOAT16 = 1, 3, 7, 10, 16
"""ONNX's numbers of number types."""


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def field(number: int, value: bytes | str | int) -> bytes:
    """Encode one field of a message.

    Args:
        number: the field's.
        value: text, bytes or a message, or a number above or equal 0.
    """
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def tensor(name: str, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    """Encode a tensor with its numbers.

    Args:
        name: its name.
        shape: its sizes.
        kind: ONNX's number of its number type.
        data: the numbers, little-endian.
    """
    return b"".join(field(1, size) for size in shape) + field(2, kind) + field(8, name) + field(9, data)


def number_type(values: "Array") -> int:
    """Return ONNX's number of a weight's number type; 16-bit integers are bfloat16, which numpy lacks."""
    return {"float16": FLOAT16, "uint16": BFLOAT16}.get(values.dtype.name, FLOAT)


def external_tensor(name: str, values: "Array") -> bytes:
    """Describe a tensor whose numbers are passed beside the graph; ONNX Runtime asks for a file's name, but opens none.

    Args:
        name: its name.
        values: the numbers.
    """
    place = {"location": name, "offset": "0", "length": str(values.nbytes)}
    about = b"".join(field(1, size) for size in values.shape) + field(2, number_type(values)) + field(8, name)
    return about + b"".join(field(13, field(1, key) + field(2, value)) for key, value in place.items()) + field(14, 1)


def value_info(name: str, kind: int, axes: Sequence[str]) -> bytes:
    """Describe an input or an output.

    Args:
        name: its name.
        kind: ONNX's number of its number type.
        axes: names of its axes.
    """
    shape = b"".join(field(1, field(2, axis)) for axis in axes)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def attribute(name: str, value: Any) -> bytes:
    """Encode an attribute.

    Args:
        name: its name.
        value: a whole number, a float, a text, or whole numbers.
    """
    start = field(1, name)
    if isinstance(value, str):
        return start + field(4, value) + field(20, 3)
    if isinstance(value, float):
        return start + _varint(2 << 3 | 5) + struct.pack("<f", value) + field(20, 1)
    if isinstance(value, int):
        return start + field(3, value % 2**64) + field(20, 2)
    return start + b"".join(field(8, each % 2**64) for each in value) + field(20, 7)
