"""The values of a sparse embedding call: the vectors, the answer of a target, the result."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from hf_gateway.values.embedding import VectorAnswer
from hf_gateway.values.result import Result

if TYPE_CHECKING:
    from hf_gateway.values.vector_space import VectorSpace

MAX_INDEX = 2**32 - 1
"""The largest index that stores of sparse vectors accept."""
COMPARABLE_NUMBERS = 1024
"""Length of what a sparse vector is compared by: enough for the cosine of two vectors to be right to a few hundredths where it is
low, and to one part in a thousand where it is near 1."""
_MULTIPLIER, _BITS = 0x9E3779B97F4A7C15, (1 << 64) - 1


@dataclass(frozen=True)
class SparseVector:
    """The entries of one vector that are not 0."""

    indices: list[int]
    """The indexes of the entries, ascending."""
    values: list[float]
    """Their values, in the order of the indexes."""

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.indices)

    def to_dict(self) -> dict[int, float]:
        """Return the values by index."""
        return dict(zip(self.indices, self.values, strict=True))

    def dot(self, other: "SparseVector") -> float:
        """Return the dot product with another vector of the same space."""
        known = other.to_dict()
        return sum(
            value * known[index] for index, value in zip(self.indices, self.values, strict=True) if index in known
        )


class SparseVectors(Sequence[SparseVector]):
    """n sparse vectors in three arrays: the indexes and the values of all entries, and where the entries of each vector begin."""

    __slots__ = ("indices", "offsets", "values")

    def __init__(self, indices: "array[int]", values: "array[float]", offsets: "array[int]") -> None:
        """Store the arrays.

        Args:
            indices: `array('I')` of all entries, ascending within each vector.
            values: `array('f')` of all entries.
            offsets: `array('Q')` of n + 1 positions, from 0 to the number of entries.
        """
        if len(indices) != len(values) or not offsets or offsets[-1] != len(indices):
            raise ValueError(f"{len(indices)} indexes and {len(values)} values are not sparse vectors")
        self.indices = indices
        self.values = values
        self.offsets = offsets

    @classmethod
    def of(cls, rows: Iterable[Mapping[int, float]]) -> Self:
        """Build from the values by index of each vector; values of 0 are left out. Raises OverflowError beyond MAX_INDEX."""
        indices, values, offsets = array("I"), array("f"), array("Q", [0])
        for row in rows:
            kept = sorted((index, value) for index, value in row.items() if value)
            indices.extend(index for index, _ in kept)
            values.extend(value for _, value in kept)
            offsets.append(len(indices))
        return cls(indices, values, offsets)

    @classmethod
    def concat(cls, blocks: Iterable["SparseVectors"]) -> Self:
        """Join blocks in order."""
        indices, values, offsets = array("I"), array("f"), array("Q", [0])
        for block in blocks:
            start = len(indices)
            indices.extend(block.indices)
            values.extend(block.values)
            offsets.extend(start + end for end in block.offsets[1:])
        return cls(indices, values, offsets)

    def __len__(self) -> int:
        """Return n."""
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        """Return vector `index`; a slice gives a list of vectors."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        start, end = self._bounds(index)
        return SparseVector(self.indices[start:end].tolist(), self.values[start:end].tolist())

    def __iter__(self) -> Iterator[SparseVector]:
        """Yield each vector."""
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Compare all entries."""
        return (
            isinstance(other, SparseVectors)
            and self.offsets == other.offsets
            and self.indices == other.indices
            and self.values == other.values
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the counts, never the numbers."""
        return f"SparseVectors({len(self)}, {len(self.indices)} entries)"

    def head(self, count: int) -> Self:
        """Return the first `count` vectors."""
        end = self.offsets[count]
        return type(self)(self.indices[:end], self.values[:end], self.offsets[: count + 1])

    def take(self, places: Sequence[int]) -> Self:
        """Return the vectors at these indexes, in this order; one may be repeated."""
        indices, values, offsets = array("I"), array("f"), array("Q", [0])
        for place in places:
            start, end = self._bounds(place)
            indices.extend(self.indices[start:end])
            values.extend(self.values[start:end])
            offsets.append(len(indices))
        return type(self)(indices, values, offsets)

    def comparable(self, index: int) -> "array[float]":
        """Return vector `index` folded into COMPARABLE_NUMBERS float32.

        Each entry is added or subtracted at a position that its index decides, so that the cosine and the length of what comes
        out are about those of the vectors themselves, and nearly the same where the vectors are.
        """
        row = [0.0] * COMPARABLE_NUMBERS
        start, end = self._bounds(index)
        for entry in range(start, end):
            mixed = ((self.indices[entry] + 1) * _MULTIPLIER) & _BITS
            mixed ^= mixed >> 32
            value = self.values[entry]
            row[mixed % COMPARABLE_NUMBERS] += value if mixed & (1 << 20) else -value
        return array("f", row)

    def _bounds(self, index: int) -> tuple[int, int]:
        n = len(self)
        position = index + n if index < 0 else index
        if not 0 <= position < n:
            raise IndexError(f"vector {index} of {n}")
        return self.offsets[position], self.offsets[position + 1]


@dataclass(frozen=True)
class SparseAnswer(VectorAnswer[SparseVectors]):
    """The answer of a backend to one request for sparse embeddings."""


@dataclass(frozen=True, kw_only=True)
class SparseResult(Result):
    """The sparse vectors with the targets that made them, and the attempts that failed before."""

    served_by: tuple[str, ...]
    """Labels of the targets that answered, in their order."""
    vectors: SparseVectors
    """One vector for each text, in the order of the texts; one without entries for a text in which the model finds nothing."""
    space: "VectorSpace"
    """The space of the vectors: they can be compared with those of the same space only."""
