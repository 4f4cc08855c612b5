"""Sparse vectors in three arrays, and what they are compared by."""

import copy
import math
import pickle
import random
from array import array

import pytest

from hf_gateway.spaces.fingerprint import MIN_SAME_COSINE
from hf_gateway.values.sparse import COMPARABLE_NUMBERS, MAX_INDEX, SparseVector, SparseVectors

ROWS: list[dict[int, float]] = [{7: 1.0, 3: 0.5}, {}, {MAX_INDEX: 2.0, 0: -1.0}]
VECTORS = SparseVectors.of(ROWS)


def test_they_come_back_sorted_and_by_place() -> None:
    assert VECTORS[0] == SparseVector([3, 7], [0.5, 1.0])
    assert [vector.to_dict() for vector in VECTORS] == ROWS
    assert VECTORS[-1].indices == [0, MAX_INDEX]
    assert len(VECTORS[1:]) == len(VECTORS) - 1 == 2
    assert [len(vector) for vector in VECTORS] == [2, 0, 2]
    with pytest.raises(IndexError):
        VECTORS[3]


def test_zeros_are_left_out_and_other_indexes_refused() -> None:
    assert SparseVectors.of([{1: 0.0, 2: 1.0}]) == SparseVectors.of([{2: 1.0}])
    for index in (-1, MAX_INDEX + 1):
        with pytest.raises(OverflowError):
            SparseVectors.of([{index: 1.0}])


def test_parts() -> None:
    assert SparseVectors.concat([VECTORS.head(1), VECTORS.take([1, 2])]) == VECTORS
    assert SparseVectors.concat([]) == SparseVectors.of([])
    assert [vector.to_dict() for vector in VECTORS.take([2, 0, 2])] == [ROWS[2], ROWS[0], ROWS[2]]
    assert [*VECTORS] != VECTORS
    with pytest.raises(ValueError, match="2 indexes and 1 values"):
        SparseVectors(array("I", [1, 2]), array("f", [1.0]), array("Q", [0, 2]))


def test_copies_and_pickles_are_equal() -> None:
    for copied in (pickle.loads(pickle.dumps(VECTORS)), copy.deepcopy(VECTORS)):
        assert copied == VECTORS
        assert copied is not VECTORS


def test_the_dot_product() -> None:
    assert SparseVector([1, 3], [2.0, 1.0]).dot(SparseVector([3, 4], [5.0, 1.0])) == 5.0


def cosine(one: "array[float]", other: "array[float]") -> float:
    return sum(map(float.__mul__, one, other)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def test_what_is_compared_keeps_the_cosine() -> None:
    dice = random.Random(1)
    one = {dice.randrange(30522): dice.random() for _ in range(200)}
    noisy = {index: value * (1 + dice.uniform(-0.005, 0.005)) for index, value in one.items()}
    half = {index: (value if place % 2 else 0.0) for place, (index, value) in enumerate(one.items())}
    other = {dice.randrange(30522): dice.random() for _ in range(200)}
    rows = [SparseVectors.of([row]).comparable(0) for row in (one, noisy, half, other)]
    assert {len(row) for row in rows} == {COMPARABLE_NUMBERS}
    assert cosine(rows[0], rows[1]) > MIN_SAME_COSINE
    assert cosine(rows[0], rows[2]) == pytest.approx(math.sqrt(0.5), abs=0.1)
    assert abs(cosine(rows[0], rows[3])) < 0.15
    length = math.sqrt(sum(value * value for value in one.values()))
    assert math.hypot(*rows[0]) == pytest.approx(length, rel=0.1)
