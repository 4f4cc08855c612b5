"""The failure table against answers of real servers (`data/error_bodies.yaml`), as a body and within a stream."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway import Gateway, errors
from hf_gateway.wire import failure_table
from hf_gateway.wire.classify import classify, classify_inside
from tests.servers.loopback import error_in_stream
from tests.servers.openai import FakeOpenAI

GROUPS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "data" / "error_bodies.yaml").read_text(encoding="utf-8")
)
BODIES = [
    pytest.param(group["kind"], entry, id=f"{group['kind']}-{entry['from']}-{entry['status']}-{number}")
    for group in GROUPS
    for number, entry in enumerate(group["bodies"])
]
INSIDE = [each for each in BODIES if each.values[1].get("inside", True)]


def raw(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def facts(found: errors.GatewayError, entry: dict[str, Any]) -> None:
    """Check that the numbers and the clue of the body reached the error."""
    if isinstance(found, errors.ContextOverflow):
        assert (found.limit, found.length) == (entry.get("limit"), entry.get("length"))
    if isinstance(found, errors.BatchTooLarge):
        assert found.max_texts == entry.get("texts")
    if isinstance(found, errors.BadGeneration):
        assert found.failed_generation == entry.get("wrote")
        assert repr(entry.get("wrote", "")) in found.message or "wrote" not in entry


@pytest.mark.parametrize(("kind", "entry"), BODIES)
def test_a_body_gets_its_class(kind: str, entry: dict[str, Any]) -> None:
    found = classify(entry["status"], {}, raw(entry["body"]), target="t")
    assert type(found).__name__ == kind, str(found)
    assert (found.status, found.target) == (entry["status"], "t")
    facts(found, entry)


@pytest.mark.parametrize(("kind", "entry"), INSIDE)
def test_the_same_inside_a_200_gets_the_same_class(kind: str, entry: dict[str, Any]) -> None:
    body = entry["body"]
    inside = body if "error" in body or body.get("object") == "error" else {"error": body}
    found = classify_inside(inside, target="t")
    assert type(found).__name__ == kind, str(found)
    assert found is not None
    facts(found, entry)


@pytest.mark.parametrize("group", GROUPS, ids=[group["kind"] for group in GROUPS])
def test_a_stream_whose_first_event_is_an_error_ends_in_its_class(group: dict[str, Any], primary: FakeOpenAI) -> None:
    entry = next(each for each in group["bodies"] if each.get("inside", True) and "error" in each["body"])
    primary.always(error_in_stream(0, entry["body"]))
    with (
        Gateway("m", [f"openai:{primary.url}"], task="chat", max_retries=0) as gateway,
        pytest.raises(errors.GatewayError) as caught,
        gateway.stream("hi") as stream,
    ):
        list(stream)
    # A conversation cannot be split, so that what splitting would help is too long for this target.
    kind = "ContextOverflow" if group["kind"] == "BatchTooLarge" else group["kind"]
    assert type(caught.value).__name__ == kind, str(caught.value)
    if kind == group["kind"]:
        facts(caught.value, entry)


def test_the_word_error_for_nothing_is_no_error() -> None:
    assert classify_inside({"error": None, "choices": []}) is None
    assert classify_inside({"error": {}, "choices": []}) is None


# The table as data.


def test_every_rule_gives_its_reason_and_can_be_reached() -> None:
    """A rule below one that takes all of its cases would be dead, and its reason a lie."""
    for rule in failure_table.RULES:
        assert len(rule.why.split()) >= 4, rule
        assert rule.kind.__name__ in vars(errors)
        assert rule.codes == {code.lower() for code in rule.codes}
        if rule.words:
            assert not re.search(rule.words, "", re.IGNORECASE), "it would match everything"


def test_no_code_stands_in_two_rules() -> None:
    alone = [code for rule in failure_table.RULES if not rule.words for code in rule.codes]
    assert [code for code, count in Counter(alone).items() if count > 1] == []


def test_codes_stand_before_words_and_words_before_the_status() -> None:
    order = [0 if rule.codes else 1 if rule.words else 2 for rule in failure_table.RULES]
    assert order == sorted(order)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_code_counts_at_every_status_whatever_the_words(status: int) -> None:
    kinds = {code: rule.kind for rule in failure_table.RULES if not rule.words for code in rule.codes}
    assert len(kinds) > 40
    for code, kind in kinds.items():
        for error in ({"message": "no", "code": code}, {"message": "no", "type": code.upper()}):
            assert type(classify(status, {}, json.dumps({"error": error}).encode())) is kind, (code, status)
        assert type(classify(status, {}, json.dumps({"message": "no", "code": code}).encode())) is kind, (code, status)


def test_every_status_has_a_class_without_words() -> None:
    for status in range(300, 600):
        found = classify(status, {}, b"")
        assert type(found) is not errors.GatewayError
        assert f"HTTP {status}" in str(found)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "loading", "estimated_time": 1' + b"0" * 400 + b"}",
        b'{"error": "loading", "estimated_time": NaN}',
        b'{"error": "loading", "estimated_time": true}',
        b'{"error": "loading", "estimated_time": -4}',
        b'{"error": {"message": "m", "n_ctx": ' + b"9" * 5000 + b"}}",
        b'{"error": {"message": "exceed_context", "code": "context_length_exceeded", "n_ctx": true, "n_prompt_tokens": -1}}',
        b"[" * 3000 + b"]" * 3000,
        b'{"error": ' * 900 + b"1" + b"}" * 900,
        b'{"error": {"message": ["a", {"b": 1}], "code": {"c": []}}}',
        b'{"error": {"metadata": {"raw": 5}, "message": 7}}',
        b'{"error": "{\\"error\\": [[[", "code": ' + b"1" * 4000 + b"}",
        b"\xff\xfe\x00",
        b'{"error": "\\ud800 broken"}',
        b'{"error": {"code": "context_length_exceeded", "message": "limit is ' + b"7" * 300 + b'"}}',
        b"x" * 2_000_000,
    ],
    ids=range(15),
)
@pytest.mark.parametrize("status", [400, 503])
def test_a_body_of_any_kind_has_a_class(status: int, body: bytes) -> None:
    found = classify(status, {}, body)
    assert len(str(found)) < 1200
    assert found.retry_after is None or 0 <= found.retry_after <= 60
    assert getattr(found, "limit", None) is None
