"""Vectors: the same numbers, faults and bits, whether numpy is loaded in the program or not."""

import random
import subprocess
import sys
import textwrap
from array import array

import pytest

from hf_gateway.values import vectors
from hf_gateway.values.vectors import JoinedVectors, Vectors


@pytest.fixture(params=["numpy", "without numpy"])
def _numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        pytest.importorskip("numpy")
        monkeypatch.setattr(vectors, "_NUMPY_MIN_NUMBERS", 1)
    else:
        monkeypatch.setattr(vectors, "_NUMPY_MIN_NUMBERS", sys.maxsize)


def drawn(n: int, dim: int, scale: float = 0.05) -> Vectors:
    source = random.Random(f"{n}x{dim}")
    return Vectors.of([[source.gauss(0, scale) for _ in range(dim)] for _ in range(n)])


NAN, INF = float("nan"), float("inf")
FAULTS = {
    "none": ([[0.1, 0.2], [0.3, 0.4]], None),
    "NaN": ([[0.1, 0.2], [0.3, NAN]], "row 1 has a number that is NaN or infinite"),
    "infinity": ([[INF, 0.2], [0.3, 0.4]], "row 0 has a number that is NaN or infinite"),
    "infinities that cancel": ([[0.1, 0.2], [INF, -INF]], "row 1 has a number that is NaN or infinite"),
    "zeros": ([[0.1, 0.2], [0.0, 0.0]], "row 1 is all zeros"),
    "zeros with a sign": ([[-0.0, 0.0], [0.1, 0.2]], "row 0 is all zeros"),
    "zeros before NaN": ([[0.0, 0.0], [NAN, 0.2]], "row 0 is all zeros"),
    "NaN before zeros": ([[NAN, 0.0], [0.0, 0.0]], "row 0 has a number that is NaN or infinite"),
    "numbers that add up to nothing": ([[1.0, -1.0], [0.5, -0.5]], None),
    "the largest": ([[3e38, 3e38], [3e38, -3e38]], None),
    "the smallest": ([[1e-45, 0.0], [0.0, -1e-45]], None),
    "no rows": ([], None),
}


@pytest.mark.usefixtures("_numbers")
@pytest.mark.parametrize(("rows", "fault"), FAULTS.values(), ids=FAULTS)
def test_the_first_fault_is_named(rows: list[list[float]], fault: str | None) -> None:
    assert Vectors.of(rows).fault() == fault


@pytest.mark.usefixtures("_numbers")
def test_rows_are_scaled_to_length_one_and_zeros_stay() -> None:
    found = Vectors.of([[3.0, 4.0], [0.0, 0.0], [-5.0, 0.0]]).normalized()
    assert found == Vectors.of([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])
    assert found.norms() == pytest.approx([1.0, 0.0, 1.0])


@pytest.mark.usefixtures("_numbers")
def test_unit_rows_are_unit_rows_after_they_were_cut_and_others_are_not_scaled() -> None:
    unit = drawn(20, 64).normalized().truncated(16)
    assert unit.norms() == pytest.approx([1.0] * 20, abs=1e-6)
    assert drawn(20, 64).truncated(16).tolist() == [row[:16] for row in drawn(20, 64)]


@pytest.mark.parametrize("scale", [1e-30, 0.05, 1e15])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (50, 384), (2, 4096)])
def test_numpy_changes_not_one_bit(shape: tuple[int, int], scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    made = drawn(*shape, scale)
    results = []
    for worth in (1, sys.maxsize):
        monkeypatch.setattr(vectors, "_NUMPY_MIN_NUMBERS", worth)
        scaled = made.normalized()
        results.append((made.norms(), scaled.data.tobytes(), scaled.truncated((shape[1] + 1) // 2).data.tobytes()))
    assert results[0] == results[1]


def test_numpy_is_not_imported_for_that() -> None:
    code = """
        import sys
        from hf_gateway.values.vectors import JoinedVectors, Vectors
        made = Vectors.of([[0.1] * 384] * 100)
        made.fault(), made.norms(), made.normalized(), made.truncated(64)
        assert "numpy" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


@pytest.mark.parametrize("rows", [[[0.5, 1]], [(0.5, 1)], [array("f", [0.5, 1])], [[0.5, True]]])
def test_rows_may_be_any_sequence_of_numbers(rows: list[list[float]]) -> None:
    assert Vectors.of(rows).tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("row", [[0.5, None], [0.5, "1"], [[0.5], 1.0]])
def test_rows_of_anything_else_are_refused(row: list[float]) -> None:
    with pytest.raises(TypeError):
        Vectors.of([[0.1, 0.2], row])


def joined(blocks: list[Vectors], *, lists: bool) -> Vectors:
    made = JoinedVectors(lists=lists)
    for block in blocks:
        made.add(block)
    return made.vectors()


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("sizes", [[], [0], [3], [2, 1], [1, 0, 4, 2]])
def test_blocks_are_joined_in_order(sizes: list[int], lists: bool) -> None:
    blocks = [drawn(size, 8) for size in sizes]
    whole = joined(blocks, lists=lists)
    assert whole == Vectors.of([row for block in blocks for row in block])
    assert whole.tolist() == [row for block in blocks for row in block]


@pytest.mark.parametrize("lists", [True, False])
def test_blocks_that_are_joined_stay_as_they_are(lists: bool) -> None:
    first, second = drawn(2, 8), drawn(3, 8)
    joined([first, second], lists=lists)
    assert (first, second) == (drawn(2, 8), drawn(3, 8))


def test_lists_that_a_caller_changes_are_not_given_to_the_next_one() -> None:
    whole = joined([drawn(2, 8), drawn(3, 8)], lists=True)
    kept = whole[0]
    whole.tolist()[0].clear()
    assert whole.tolist()[0] == kept


def test_blocks_of_different_dimensions_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"vectors of different dimensions: \[4, 8\]"):
        joined([drawn(2, 8), drawn(2, 4)], lists=False)
