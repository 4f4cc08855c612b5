"""Vectors: a block of float32 rows, readable as lists, as bytes and as a numpy array.

numpy alone weighs more than the rest of the base install together, and nothing on the way from a server to a
framework's list of floats needs it. So a block of vectors is one flat `array('f')` and two numbers; a caller with numpy
gets the same memory through `numpy()` without a copy.
"""

import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import add, mul
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import numpy as np

UNIT_TOLERANCE = 1e-3
"""How far from 1 the L2 norm of a "unit" vector may be: float16 servers are off by a few 1e-4."""


_TOP_BYTE = 3 if sys.byteorder == "little" else 0
"""The byte of a float32 with sign and exponent: 7F or FF for NaN, infinity and numbers beyond 1.7e38, and for no other."""
_NUMPY_MIN_NUMBERS = 4096
"""From this size on numpy, if the program has loaded it, is faster than the loops here."""


class ComparableVectors(Protocol):
    """n vectors of any form, as far as the guard of a vector space needs them."""

    def __len__(self) -> int:
        """Return n."""

    def head(self, count: int) -> Self:
        """Return the first vectors."""

    def comparable(self, index: int) -> "array[float]":
        """Return the numbers, float32, by which vector `index` is compared with another one of its space."""


class Vectors(Sequence[list[float]]):
    """n vectors of one dimension, as float32 of shape (n, dim).

    Iterating or indexing gives plain lists of Python floats, which is what both frameworks want.
    """

    __slots__ = ("_lists", "data", "dim")

    def __init__(self, data: "array[float]", dim: int) -> None:
        """Store a flat `array('f')` of n*dim numbers; `dim` may be 0 only if there are no numbers."""
        if len(data) and (dim <= 0 or len(data) % dim):
            raise ValueError(f"{len(data)} numbers are not rows of {dim}")
        self.data = data
        self.dim = dim
        self._lists: list[list[float]] | None = None

    @classmethod
    def of(cls, rows: Iterable[Sequence[float]]) -> Self:
        """Build from rows of equal length; raises ValueError when lengths differ, OverflowError beyond float32."""
        data: array[float] = array("f")
        dim = 0
        for index, row in enumerate(rows):
            if index == 0:
                dim = len(row)
            elif len(row) != dim:
                raise ValueError(f"row {index} has {len(row)} numbers, row 0 has {dim}")
            if isinstance(row, list):
                data.fromlist(row)
            else:
                data.extend(row)
        return cls(data, dim)

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview, dim: int) -> Self:
        """Build from little-endian float32 bytes, the form of OpenAI's base64 answers and of the cache.

        Args:
            raw: n*dim*4 bytes.
            dim: numbers per row.
        """
        data: array[float] = array("f")
        data.frombytes(raw)
        if sys.byteorder == "big":
            data.byteswap()
        return cls(data, dim)

    def __len__(self) -> int:
        """Return n."""
        return len(self.data) // self.dim if self.dim else 0

    def __getitem__(self, index: Any) -> Any:
        """Return row `index` as a list of floats; a slice gives a list of rows."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        n = len(self)
        position = index + n if index < 0 else index
        if not 0 <= position < n:
            raise IndexError(f"row {index} of {n}")
        return self.data[position * self.dim : (position + 1) * self.dim].tolist()

    def __iter__(self) -> Iterator[list[float]]:
        """Yield each row as a list of floats."""
        for start in range(0, len(self.data), self.dim or 1):
            yield self.data[start : start + self.dim].tolist()

    def __eq__(self, other: object) -> bool:
        """Compare all numbers."""
        return isinstance(other, Vectors) and self.dim == other.dim and self.data == other.data

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the shape, never the numbers."""
        return f"Vectors({len(self)} x {self.dim})"

    def row(self, index: int) -> Self:
        """Return row `index` as vectors of shape (1, dim)."""
        return type(self)(self.data[index * self.dim : (index + 1) * self.dim], self.dim)

    def head(self, count: int) -> Self:
        """Return the first `count` vectors."""
        return type(self)(self.data[: count * self.dim], self.dim)

    def comparable(self, index: int) -> "array[float]":
        """Return row `index` as float32."""
        return self.data[index * self.dim : (index + 1) * self.dim]

    def tolist(self) -> list[list[float]]:
        """Return n lists of dim Python floats."""
        made, self._lists = self._lists, None  # given away once, since the caller may change them
        return list(self) if made is None else made

    def numpy(self) -> "np.ndarray[Any, Any]":
        """Return a float32 array of shape (n, dim) over the same memory; needs numpy."""
        import numpy as np

        return np.frombuffer(self.data, dtype=np.float32).reshape(len(self), self.dim)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        """Support `numpy.asarray(vectors)`."""
        found = self.numpy()
        if dtype is not None and found.dtype != dtype:
            return found.astype(dtype)
        return found.copy() if copy else found

    def norms(self) -> list[float]:
        """Return the L2 norm of each row."""
        if (rows := self._as_numpy()) is not None:
            lengths: list[float] = _lengths(rows).tolist()
            return lengths
        return [_length(row) for row in self._rows()]

    def normalized(self) -> Self:
        """Return the rows scaled to length 1; a zero row stays zero."""
        data: array[float] = array("f")
        if (rows := self._as_numpy()) is not None:
            data.frombytes(_scaled(rows).tobytes())
            return type(self)(data, self.dim)
        for row in self._rows():
            length = _length(row)
            data.extend([value / length for value in row] if length else row)
        return type(self)(data, self.dim)

    def truncated(self, dim: int) -> Self:
        """Return the first `dim` numbers of each row, scaled back to length 1 if the rows had length 1 before."""
        unit = all(abs(norm - 1.0) <= UNIT_TOLERANCE for norm in self.norms())
        data: array[float] = array("f")
        for row in self._rows():
            data.extend(row[:dim])
        cut = type(self)(data, dim)
        return cut.normalized() if unit else cut

    def fault(self) -> str | None:
        """Return what makes these numbers useless as embeddings (NaN, infinite, all zero), or None."""
        data, dim = self.data, self.dim
        large = data.tobytes()[_TOP_BYTE::4]
        certain = b"\x7f" not in large and b"\xff" not in large
        for index, start in enumerate(range(0, len(data), dim or 1)):
            if not certain and not all(map(math.isfinite, data[start : start + dim])):
                return f"row {index} has a number that is NaN or infinite"
            if not data[start] and not any(data[start : start + dim]):
                return f"row {index} is all zeros"
        return None

    def _as_numpy(self) -> "np.ndarray[Any, Any] | None":
        """Return the numbers as a numpy array if that is faster; importing numpy only for this would take longer."""
        return self.numpy() if len(self.data) >= _NUMPY_MIN_NUMBERS and sys.modules.get("numpy") else None

    def _rows(self) -> Iterator["array[float]"]:
        for start in range(0, len(self.data), self.dim or 1):
            yield self.data[start : start + self.dim]


class JoinedVectors:
    """Joins blocks in order, each when it arrives: nothing is left to do after the last one."""

    def __init__(self, *, lists: bool = False) -> None:
        """lists: whether the caller will ask for `Vectors.tolist`, so that the lists are made block by block, too."""
        self._wants_lists = lists
        self._first: Vectors | None = None
        self._data: array[float] | None = None
        self._lists: list[list[float]] = []
        self._dims: set[int] = set()

    def add(self, block: Vectors) -> None:
        """Add the next block."""
        if not len(block):
            return
        self._dims.add(block.dim)
        if self._first is None:  # the only one of most calls, which needs no copy
            self._first = block
            return
        if self._data is None:
            self._data = array("f", self._first.data)
            self._add_lists(self._first)
        self._data.extend(block.data)
        self._add_lists(block)

    def _add_lists(self, block: Vectors) -> None:
        if self._wants_lists:
            self._lists.extend(block)

    def vectors(self) -> Vectors:
        """Return all of them. Raises ValueError if their dimensions differ."""
        if len(self._dims) > 1:
            raise ValueError(f"vectors of different dimensions: {sorted(self._dims)}")
        if self._first is None or self._data is None:
            return self._first or Vectors(array("f"), 0)
        whole = Vectors(self._data, self._first.dim)
        whole._lists = self._lists if self._wants_lists else None
        return whole


def _length(row: "array[float]") -> float:
    # Added in order, which sum() does not do since Python 3.12: the result has the same bits with and without numpy.
    return math.sqrt(reduce(add, map(mul, row, row), 0.0))


def _lengths(rows: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    import numpy as np

    wide = rows.astype(np.float64)
    # A running sum is added in order, too; the product of two float32 numbers is exact in float64.
    with np.errstate(all="ignore"):
        return np.sqrt(np.add.accumulate(wide * wide, axis=1)[:, -1])


def _scaled(rows: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    import numpy as np

    lengths = _lengths(rows)
    lengths[lengths == 0.0] = 1.0
    with np.errstate(all="ignore"):
        scaled: np.ndarray[Any, Any] = (rows / lengths[:, None]).astype(np.float32)
    return scaled
