"""Number types of weights: 16 bits as they are in a file, and 8 bits in blocks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

BLOCK_VALUES = 64
"""Values of a row that share one scale."""
MIN_BLOCKED_VALUES = 65_536
"""Smaller weights are not stored in 8 bits, since that would save nothing."""


def as_float32(values: "Array") -> "Array":
    """Return numbers as float32; 16-bit integers are bfloat16, which numpy lacks. A copy unless they are float32."""
    import numpy as np

    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def in_blocks(values: "Array") -> tuple["Array", "Array"] | None:
    """Return a (e, d) weight as 8-bit integers, (e, n, 64), and the scale of each block, (e, n, 1); None for a small one.

    The last block of a row is filled with zeros.
    """
    import numpy as np

    if values.size < MIN_BLOCKED_VALUES:
        return None
    count, wide = values.shape
    blocks = -(-wide // BLOCK_VALUES)
    whole = np.zeros((count, blocks * BLOCK_VALUES), np.float32)
    whole[:, :wide] = as_float32(values)
    whole = whole.reshape(count, blocks, BLOCK_VALUES)
    scales = np.maximum(whole.max(2, keepdims=True), -whole.min(2, keepdims=True)) / np.float32(127)
    whole /= np.where(scales == 0, np.float32(1), scales)
    return np.rint(whole, out=whole).astype(np.int8), scales


def out_of_blocks(integers: "Array", scales: "Array", wide: int) -> "Array":
    """Return the (e, d) float32 weight that blocks stand for.

    Args:
        integers: (e, n, 64).
        scales: (e, n, 1).
        wide: d.
    """
    import numpy as np

    return np.ascontiguousarray((integers * scales).reshape(len(integers), -1)[:, :wide])
