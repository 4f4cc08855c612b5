"""JSON as it is read and written: the verdicts of the standard library, whichever parser is here."""

import enum
import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gateway import errors
from hf_gateway.values.http import HttpResponse
from hf_gateway.wire import http, openai, sse, tei
from hf_gateway.wire import json as ours

DOCUMENTS = [
    b"{}",
    b' [1, 2.5, -0.0, -0, 1e5, 1E+5, true, false, null, "a"] ',
    b'{"a": 1, "a": 2}',
    b"12345678901234567890123",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1" + b"0" * 400,
    b"1e999",
    b"-1e999",
    b"[NaN, Infinity, -Infinity]",
    b'"\\ud800"',
    b'"\\ud83d\\ude00 \\u0000 \x7f \xc3\xa9"',
    b"\xef\xbb\xbf{}",
    '{"a": "é"}'.encode("utf-16"),
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 300 + b"1" + b"}" * 300,
]
NO_DOCUMENTS = [
    b"",
    b" ",
    b"{",
    b"[1,]",
    b'{"a" 1}',
    b"{'a': 1}",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"nan",
    b"tru",
    b'"\x01"',
    b'"\\x"',
    b'"\xff"',
    b"[1] [2]",
    b"{}\x00",
    b"1_0",
    b"0x10",
    b"<html></html>",
]


@pytest.fixture(params=["orjson", "without orjson"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(ours, "orjson", None)
    return str(request.param)


def exactly(value: Any) -> str:
    """A value with its types, so that 1 and 1.0 and True differ, and NaN is the same as NaN."""
    return repr(value)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_the_standard_library_reads_is_read_the_same(document: bytes) -> None:
    assert exactly(ours.loads(document)) == exactly(json.loads(document))


@pytest.mark.parametrize("document", NO_DOCUMENTS)
def test_what_the_standard_library_refuses_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        json.loads(document)
    for read in (ours.loads, ours.loads_utf8, ours.loads_vectors):
        with pytest.raises(ValueError):
            read(document)


def test_a_document_of_any_depth_is_read_or_refused(parser: str) -> None:
    for read in (ours.loads, ours.loads_utf8, ours.loads_vectors):
        with pytest.raises((ValueError, RecursionError)):
            read(b"[" * 100_000 + b"]" * 100_000)


@given(st.floats(allow_nan=False) | st.floats(width=32, allow_nan=False) | st.integers())
def test_any_number_is_the_one_the_standard_library_reads(value: float) -> None:
    document = json.dumps(value).encode()
    assert exactly(ours.loads(document)) == exactly(json.loads(document))
    assert ours.loads_vectors(document) == pytest.approx(json.loads(document), rel=0, abs=0) or math.isinf(value)


@given(st.text(alphabet="0123456789", min_size=1, max_size=40), st.integers(-400, 400))
def test_any_decimal_is_rounded_as_the_standard_library_does(digits: str, exponent: int) -> None:
    document = f"0.{digits}e{exponent}".encode()
    assert exactly(ours.loads_vectors(document)) == exactly(ours.loads(document)) == exactly(json.loads(document))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_any_document_is_the_one_the_standard_library_reads(value: Any) -> None:
    for document in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode()):
        assert exactly(ours.loads(document)) == exactly(value)
        assert exactly(ours.loads_utf8(document)) == exactly(value)


# Writing.


class Colour(enum.Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


PAYLOADS: list[dict[Any, Any]] = [
    {
        "input": ["a", "é", "\u2028", '"\\/', "\x00\x1f\x7f\b\f\n\r\t", "😀"],
        "model": "m",
        "truncate": True,
        "none": None,
    },
    {"input": [], "n": 0, "big": 2**80, "small": -(2**63)},
    {"temperature": 1e-7, "top_p": 1e16, "seed": 1.0, "penalty": -0.0},
    {"messages": [{"role": "user", "content": "hi"}], "options": {"a": [1, {"b": None}]}},
    {"input": (Name("a"), "b"), 1: "number", None: "none"},
    {"input": [Name("a")], "model": Name("m")},
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_request_is_written_in_the_standard_librarys_bytes(payload: dict[Any, Any]) -> None:
    wanted = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    assert http.post_json("http://a", payload).body == wanted


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_any_texts_are_written_in_the_standard_librarys_bytes(texts: list[str]) -> None:
    wanted = json.dumps({"input": texts}, ensure_ascii=False, separators=(",", ":")).encode()
    assert ours.dumps({"input": texts}) == wanted


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        ["a", float("nan")],
        {"deep": [float("-inf")]},
        "\ud800",
        ["a", "\udfff"],
        {"a"},
        b"bytes",
        object(),
        Colour.RED,
        uuid.UUID(int=1),
        {(1, 2): "a key"},
    ],
    ids=lambda value: str(value).partition(" at ")[0],
)
def test_what_json_cannot_hold_is_the_callers_fault(value: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="cannot be written as JSON"):
        http.post_json("http://a", {"input": ["a"], "value": value})


def test_a_request_that_holds_itself_is_the_callers_fault() -> None:
    payload: dict[str, Any] = {}
    payload["itself"] = payload
    with pytest.raises(errors.InvalidRequest):
        http.post_json("http://a", payload)


# Where it is used.


@pytest.mark.parametrize("document", [*NO_DOCUMENTS, b"[" * 100_000])
def test_an_answer_that_is_no_json_is_a_bad_response(document: bytes) -> None:
    for read in (http.read_json, http.read_vectors):
        with pytest.raises(errors.BadResponse, match="instead of JSON"):
            read(HttpResponse(200, {}, document), target="t")


@pytest.mark.parametrize("event", [b"\xef\xbb\xbf{}", b'{"a": "\xff"}', b"[]", b"1", "{}".encode("utf-16")])
def test_an_event_that_is_no_object_in_utf_8_is_garbled(event: bytes) -> None:
    with pytest.raises(errors.BadResponse, match="garbled event"):
        sse.parse_event(event, "t")


def test_whole_numbers_of_any_size_in_an_event_stay_what_they_are() -> None:
    assert sse.parse_event(b'{"n": 12345678901234567890123}', "t") == {"n": 12345678901234567890123}


@pytest.mark.parametrize("row", ["[0.1, 12345678901234567890123]", "[1, 18446744073709551616]", "[0.1, 1e30]"])
def test_vectors_are_the_same_with_every_parser(row: str) -> None:
    answer = f'{{"data": [{{"index": 0, "embedding": {row}}}]}}'.encode()
    found = openai.decode_embeddings(HttpResponse(200, {}, answer), 1, target="t").vectors
    assert found == tei.decode_embed(HttpResponse(200, {}, f"[{row}]".encode()), 1, target="t").vectors
    import array

    assert found[0] == array.array("f", map(float, json.loads(row))).tolist()
