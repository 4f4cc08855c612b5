"""The failure table against answers of real servers (`data/error_bodies.yaml`), as a body and within a stream."""

import base64
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
    (Path(__file__).parents[1] / "data" / "error_bodies.yaml").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("status", [400, 422, 500, 599])
def test_a_code_counts_at_every_status_whatever_the_words(status: int) -> None:
    kinds = {code: rule.kind for rule in failure_table.RULES if not rule.words for code in rule.codes}
    assert len(kinds) > 40
    for code, kind in kinds.items():
        for error in ({"message": "no", "code": code}, {"message": "no", "type": code.upper()}):
            assert type(classify(status, {}, json.dumps({"error": error}).encode())) is kind, (code, status)
        assert type(classify(status, {}, json.dumps({"message": "no", "code": code}).encode())) is kind, (code, status)
        assert type(classify(600, {}, json.dumps({"message": "no", "code": code}).encode())) is errors.BadResponse


def test_a_code_of_an_overloaded_server_is_no_more_than_too_many_requests_at_429() -> None:
    body = b'{"error": {"message": "no", "code": "overloaded"}}'
    assert [type(classify(status, {}, body)) for status in (428, 429, 430)] == [
        errors.Overloaded,
        errors.RateLimited,
        errors.Overloaded,
    ]


BY_STATUS: dict[int, type[errors.GatewayError]] = {
    401: errors.AuthenticationFailed,
    402: errors.PaymentRequired,
    403: errors.PermissionDenied,
    404: errors.ModelNotFound,
    405: errors.Unsupported,
    407: errors.ConnectFailed,
    408: errors.AttemptTimedOut,
    409: errors.ServerError,
    410: errors.ModelNotFound,
    413: errors.BatchTooLarge,
    421: errors.ServerError,
    423: errors.ServerError,
    424: errors.ServerError,
    425: errors.ServerError,
    429: errors.RateLimited,
    451: errors.PermissionDenied,
    498: errors.ContentFiltered,
    499: errors.ServerError,
    501: errors.Unsupported,
    503: errors.Overloaded,
    529: errors.Overloaded,
}
BY_HUNDRED = {4: errors.InvalidRequest, 5: errors.ServerError}


@pytest.mark.parametrize("words", [b"", b"teapot"], ids=["no words", "words that say nothing"])
def test_every_status_has_a_class_without_words(words: bytes) -> None:
    for status in range(299, 602):
        found = classify(status, {}, words)
        assert type(found) is BY_STATUS.get(status, BY_HUNDRED.get(status // 100, errors.BadResponse)), status
        assert f"HTTP {status}" in str(found)


def test_words_count_at_every_status_but_those_that_say_it_all_by_themselves() -> None:
    says_it_all = {401, 402, 403, 404, 408, 429}
    for status in range(399, 601):
        found = classify(status, {}, b"prompt is too long: 9 tokens > 8 maximum")
        counts = 400 <= status < 600 and status not in says_it_all
        assert (type(found) is errors.ContextOverflow) is counts, status


# What is read of a body.


@pytest.mark.parametrize("field", ["code", "type", "error_type", "errorType", "status", "reason"])
def test_a_code_counts_in_each_field_that_servers_write_it_to(field: str) -> None:
    for body in (
        {"message": "no", field: "insufficient_quota"},
        {"error": {"message": "no", field: "BILLING_NOT_ACTIVE"}},
    ):
        assert type(classify(400, {}, raw(body))) is errors.PaymentRequired


@pytest.mark.parametrize(
    "body",
    [
        {"error": "prompt is too long"},
        {"error": {"message": "prompt is too long"}},
        {"error": {"type": "x", "text": "prompt is too long"}},
        {"message": "prompt is too long"},
        {"detail": "prompt is too long"},
        {"detail": [{"msg": "prompt is too long"}]},
        {"errors": ["prompt is too long"]},
        {"error": "", "message": "prompt is too long"},
        {"error": None, "detail": {"message": "prompt is too long"}},
        {"title": "prompt is too long"},
        [{"error": {"message": "prompt is too long"}}],
        ["prompt is too long", "and so is this"],
        "prompt is too long",
    ],
    ids=str,
)
def test_the_words_are_found_in_each_form_of_a_body(body: Any) -> None:
    found = classify(400, {}, raw(body))
    assert type(found) is errors.ContextOverflow
    assert "prompt is too long" in found.message


def test_the_message_itself_is_what_is_repeated_and_no_more_of_the_body() -> None:
    for body in (
        {"error": {"message": "teapot", "param": "x"}, "id": 1},
        {"message": "teapot", "detail": "kettle"},
        {"detail": {"message": "teapot"}, "id": 1},
        {"errors": "teapot", "id": 1},
        [{"message": "teapot", "id": 1}],
        "teapot",
        " tea\n\tpot ".replace("tea\n\tpot", "teapot"),
    ):
        assert classify(400, {}, raw(body)).message == "teapot (HTTP 400)"
    # Of a list with several entries none is the one that counts.
    assert "teapot" in classify(400, {}, b'[{"message": "teapot"}, {"message": "kettle"}]').message
    assert "kettle" in classify(400, {}, b'[{"message": "teapot"}, {"message": "kettle"}]').message


@pytest.mark.parametrize("form", ["text", "json"])
def test_4000_characters_of_a_message_are_looked_at_and_400_repeated(form: str) -> None:
    def made(words: str) -> errors.GatewayError:
        return classify(400, {}, words.encode() if form == "text" else json.dumps({"error": words}).encode())

    cause = "prompt is too long"
    assert type(made("é" * (4000 - len(cause)) + cause)) is errors.ContextOverflow
    assert type(made("é" * (4001 - len(cause)) + cause)) is errors.InvalidRequest
    assert made("é" * 400).message == "é" * 400 + " (HTTP 400)"
    assert made("é" * 401).message == "é" * 400 + "… (HTTP 400)"


def test_2000_characters_are_kept_of_what_a_model_wrote_wrongly_and_400_repeated() -> None:
    def made(wrote: Any) -> Any:
        error = {"message": "no", "code": "tool_use_failed", "failed_generation": wrote}
        return classify(400, {}, raw({"error": error}))

    assert made("y" * 2000).failed_generation == "y" * 2000
    assert made("y" * 2001).failed_generation == "y" * 2000
    assert made("y" * 401).message == f"no (the model wrote: '{'y' * 400}…') (HTTP 400)"
    for nothing in ("", None, 5, ["y"]):
        assert made(nothing).failed_generation is None
        assert made(nothing).message == "no (HTTP 400)"


def test_a_count_of_tokens_that_cannot_be_one_is_none() -> None:
    for field, name in (("n_ctx", "limit"), ("n_prompt_tokens", "length")):
        for stated, read in ((1, 1), (10**12 - 1, 10**12 - 1), (10**12, None), (0, None), (True, None), ("8", None)):
            error = {"message": "no", "code": "context_length_exceeded", field: stated}
            assert getattr(classify(400, {}, raw({"error": error})), name) == read, (field, stated)


def test_a_limit_in_a_field_goes_before_one_in_the_words() -> None:
    error = {"message": "prompt is too long: 9 tokens > 8 maximum", "n_ctx": 7, "n_prompt_tokens": 6}
    found: Any = classify(400, {}, raw({"error": error}))
    assert (found.limit, found.length) == (7, 6)


def test_a_limit_in_tokens_is_no_count_of_texts() -> None:
    found: Any = classify(422, {}, b"batch size 64 > maximum allowed batch size 32 Tokens")
    assert (type(found), found.max_texts) == (errors.BatchTooLarge, None)


@pytest.mark.parametrize(
    ("estimate", "seconds"), [(0, 0.0), (0.5, 0.5), (60, 60.0), (61, 60.0), (-1, None), (True, None), ("5", None)]
)
def test_how_long_a_model_still_loads_is_how_long_is_waited(estimate: Any, seconds: float | None) -> None:
    body = raw({"error": "Model is loading", "estimated_time": estimate})
    assert classify(503, {}, body).retry_after == seconds
    assert classify(503, {"retry-after": "7"}, body).retry_after == 7.0


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        (
            "<html><TITLE> Bad\nGateway </TITLE></html>",
            "an HTML page titled 'Bad\\nGateway' instead of an answer (HTTP 502)",
        ),
        ("  <html></html>", "an HTML page instead of an answer (HTTP 502)"),
        ("no <html>", "no <html> (HTTP 502)"),
    ],
)
def test_of_a_page_its_title_is_shown(page: str, shown: str) -> None:
    assert classify(502, {}, page.encode()).message == shown


def test_an_error_that_is_passed_on_as_text_is_read() -> None:
    inner = json.dumps({"error": {"message": "no", "code": "insufficient_quota"}})
    for body in ({"error": inner}, {"error": {"message": inner}}, {"message": inner}):
        assert type(classify(400, {}, raw(body))) is errors.PaymentRequired, body
    for body in ({"error": f"as text: {inner}"}, {"error": "{" + inner}, {"message": 5}):
        assert type(classify(400, {}, raw(body))) is errors.InvalidRequest, body


@pytest.mark.parametrize(
    "body",
    [
        {"innererror": {"code": "insufficient_quota"}},
        {"error": {"error": {"code": "insufficient_quota"}}},
        {"error": {"innererror": {"code": "insufficient_quota"}}},
    ],
    ids=str,
)
def test_a_code_within_the_error_counts(body: Any) -> None:
    assert type(classify(400, {}, raw(body))) is errors.PaymentRequired


def test_the_words_of_the_provider_behind_a_router_are_added_once() -> None:
    def made(raw_words: Any) -> str:
        error = {"message": "Provider returned error", "metadata": {"raw": raw_words}}
        return classify(400, {}, raw({"error": error})).message

    assert made("a broken cup") == "Provider returned error: a broken cup (HTTP 400)"
    for nothing in ("", None, 7, "returned error"):
        assert made(nothing) == "Provider returned error (HTTP 400)"
    assert classify(400, {}, raw({"error": {"message": "no", "metadata": "a broken cup"}})).message == "no (HTTP 400)"


def test_advice_goes_with_the_failures_that_have_some() -> None:
    def advice(status: int, body: bytes = b"", target: str | None = "hf") -> str:
        return classify(status, {}, body, target=target).message.partition("; ")[2]

    assert "hf-gateway doctor" in advice(401)
    assert "buy credits" in advice(402)
    assert "accept the licence" in advice(403, b"the model is gated")
    assert classify(403, {}, b"", target="tei:http://h").message == "HTTP 403 with an empty body (HTTP 403)"
    assert advice(400) == advice(500) == ""
    # The scope of a token is a thing of Hugging Face alone.
    assert "needs the scope" in advice(403)
    assert "needs the scope" in advice(403, target="hf:novita")
    assert "needs the scope" in advice(403, target=None)


# Errors inside a 200.


@pytest.mark.parametrize("field", ["http_status_code", "status_code", "status", "code"])
def test_the_status_of_an_error_inside_a_200_is_read_wherever_it_stands(field: str) -> None:
    for stated in (429, "429"):
        for body in ({"error": {"message": "no", field: stated}}, {"error": "no", field: stated}):
            found = classify_inside(body, target="t")
            assert found is not None
            assert (type(found), found.status, found.target) == (errors.RateLimited, 429, "t")
    for stated in (200, 399, 600, "429 ", 4290, None):
        found = classify_inside({"error": {"message": "no", field: stated}})
        assert found is not None
        assert (type(found), found.status) == (errors.ServerError, 500)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("server_overloaded_now", 503),
        ("over_rate_limit", 429),
        ("Too Many Requests", 429),
        ("Validation", 422),
        ("invalid_request_error", 400),
        ("BadRequestError", 400),
        ("content_filter_hit", 400),
        ("AuthenticationError", 401),
        ("PermissionDeniedError", 403),
        ("not_found_error", 404),
        ("internal_error", 500),
    ],
)
def test_a_type_stands_for_a_status_in_an_error_inside_a_200(kind: str, status: int) -> None:
    found = classify_inside({"error": {"message": "no", "type": kind}})
    assert found is not None
    assert (found.status, type(found)) == (status, BY_STATUS.get(status, BY_HUNDRED[status // 100]))


def test_an_error_inside_a_200_says_that_it_came_so_and_keeps_its_wait() -> None:
    found = classify_inside({"error": "Model is loading", "estimated_time": 5, "status": 503})
    assert found is not None
    assert found.message == "an error inside the answer: Model is loading (HTTP 503)"
    assert (type(found), found.retry_after) == (errors.ModelLoading, 5.0)
    told = classify_inside({"object": "error", "message": "no"})
    assert told is not None
    assert told.message == "an error inside the answer: no (HTTP 500)"


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


PIXELS = bytes(range(256)) * 2
BASE64 = base64.b64encode(PIXELS).decode()
LINES = "\n".join(BASE64[start : start + 76] for start in range(0, len(BASE64), 76))


@pytest.mark.parametrize(
    ("repeated", "mark"),
    [
        (BASE64, BASE64[60:80]),
        (f"data:image/png;base64,{BASE64}", BASE64[60:80]),
        (LINES, BASE64[200:220]),
        (LINES.replace("\n", "\\n"), BASE64[200:220]),
        (repr(b"\x89PNG\r\n\x1a\n" + b"SECRET BYTES " * 20), "SECRET"),
        (repr(PIXELS)[2:-1], "\\xfe"),
        (PIXELS.decode("latin-1"), "\\x8f"),
        (PIXELS.decode("utf-8", "replace"), "\ufffd"),
    ],
    ids=["base64", "a data URL", "lines", "escaped lines", "a literal", "escaped", "latin-1", "undecodable"],
)
def test_a_file_that_a_server_repeats_is_not_in_the_error(repeated: str, mark: str) -> None:
    words = f"Could not read {repeated} as an image: maximum batch size exceeded"
    for body in (json.dumps({"error": {"message": words}}).encode(), words.encode()):
        told = str(classify(400, {}, body))
        assert told.startswith("Could not read ")
        assert "[bytes]" in told
        assert mark not in told


@pytest.mark.parametrize(
    "words",
    [
        "see https://huggingface.co/docs/inference-providers/tasks/text-to-image and https://huggingface.co/settings/tokens",
        f"revision {'0123456789abcdef' * 4} does not exist",
        "the input b'a cat on the moon' is text, and so is 'b'",
        "Ошибка: неверный запрос, размер изображения слишком велик для этой модели и этого поставщика",
        "图像尺寸太大" * 20,
    ],
    ids=["URLs", "a hash", "a short literal", "Cyrillic", "Chinese"],
)
def test_words_are_no_file(words: str) -> None:
    assert words in str(classify(400, {}, json.dumps({"error": {"message": words}}).encode()))
