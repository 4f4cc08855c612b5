"""Maps a failed response to the error class that says what may be done about it (`failure_table.py`)."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import (
    AuthenticationFailed,
    BadGeneration,
    BadResponse,
    BatchTooLarge,
    ContextOverflow,
    GatedModel,
    GatewayError,
    PaymentRequired,
    PermissionDenied,
)
from hf_gateway.values.kinds import kind_of
from hf_gateway.wire.failure_table import RULES, STATUS_OF
from hf_gateway.wire.retry_after import MAX_RETRY_AFTER_S, retry_after_seconds

MAX_READ_CHARS = 4_000
"""Maximum length of a server's message that the rules are matched with."""
MAX_SEARCHED_CHARS = 64_000
"""Maximum length that is searched for the caller's own text, which may precede the server's words."""
MAX_SHOWN_CHARS = 400
"""Maximum length of a server's message that an error repeats."""
MAX_CODE_CHARS = 100
MAX_GENERATION_CHARS = 2_000
"""Maximum length of malformed model output that is kept; the message repeats MAX_SHOWN_CHARS of it."""
MAX_TOKENS = 10**12
"""Above the length of any text; a larger number does not count tokens."""

_CODE_FIELDS = ("code", "type", "error_type", "errorType", "status", "reason")
_MESSAGE_FIELDS = ("error", "message", "detail", "errors")

_LIMITS = (
    re.compile(r">\s*(\d{1,12})(?!\d)"),
    re.compile(r"context (?:size|length) \((\d{1,12}) tokens", re.IGNORECASE),
    re.compile(r"(?:context|input) length should be \[\d+, (\d{1,12})\]", re.IGNORECASE),
    re.compile(
        r"(?:less than|context length is|length of(?: only)?|allowed batch size|current batch size|at most|limit of|limit is"
        r"|limit|maximum length|maximum|must be <=|cannot exceed|length is just|max is|larger than|tokens allowed|token size"
        r"|model with)[:\s(]{1,3}(\d{1,12})(?!\d)",
        re.IGNORECASE,
    ),
)
"""How servers state their limit; the first pattern that matches counts."""
_LENGTHS = (
    re.compile(
        r"\((\d{1,12})(?: tokens)?\) (?:is|exceeds)"
        r"|(?:given:|requested(?: a total of)?|resulted in|received|got|current length is|prompt is|prefill|too long:|request has"
        r"|keep the first|prompt contains|input length)\s+(\d{1,12})(?!\d)",
        re.IGNORECASE,
    ),
)
"""How servers state the length of the request."""


_ECHO = re.compile(
    r"""(["']msg["']: .{1,400}?), ["']input["']: .*?(?=, ["'](?:ctx|url)["']: |\}, ?\{["']type["']: |$)""", re.DOTALL
)
"""The value that pydantic appends to its message, which may be a whole conversation and contain any kind of error's words."""


_BYTES = (
    re.compile(r"""\bb(["'])(?=[^\n]{0,64}\\x[0-9a-f]{2})(?:\\.|(?!\1)[^\\]){32,}+\1?""", re.DOTALL),
    re.compile(r"(?:\\(?:x[0-9a-fA-F]{2}|u00[0-9a-fA-F]{2})[^\\\n]{0,12}){8,}+"),
    re.compile("(?:[\\x00-\\x08\\x0e-\\x1f\\x7f-\\x9f\\ufffd][^\\x00-\\x08\\x0e-\\x1f\\x7f-\\x9f\\ufffd]{0,12}){8,}+"),
    re.compile(
        r"(?<![\w+/=-])(?:[A-Za-z0-9+/=_-]{80,}|[A-Za-z0-9+/=_-]{60,79}(?:\\[rn]|\s){1,4}[A-Za-z0-9+/=_-]{60,})"
        r"(?:(?:\\[rn]|\s){1,4}[A-Za-z0-9+/=_-]{60,})*(?:(?:\\[rn]|\s){1,4}[A-Za-z0-9+/_-]+=+)?"
    ),
)
"""Files that a server repeats, such as an image: a literal of bytes, escaped or undecodable bytes, and base64, also in lines."""


@dataclass(frozen=True)
class _ServerWords:
    """The parts of an error body."""

    words: str
    """The server's message."""
    codes: frozenset[str] = frozenset()
    """Its codes for the failure, in lower case."""
    fields: Mapping[str, Any] | None = None


def classify(status: int, headers: Mapping[str, str], body: bytes, *, target: str | None = None) -> GatewayError:
    """Return the error for a failed HTTP response.

    Args:
        status: of the response.
        headers: names in lower case.
        body: as received; may be an HTML page or a list instead of a JSON object.
        target: label of the target that answered.

    Returns:
        The error, to be raised by the caller.
    """
    return _classified(status, headers, _read_words(body), target)


def classify_inside(data: Mapping[str, Any], *, target: str | None = None) -> GatewayError | None:
    """Return the error in the body of a 200 response, or None if it contains none.

    Its status is a number in the body, or follows from a code or type; otherwise it counts as the server's failure.

    Args:
        data: the decoded body.
        target: label of the target that answered.
    """
    error = data.get("error")
    if not error and data.get("object") != "error":
        return None
    said = _words_in(data)
    facts = {**data, **error} if isinstance(error, Mapping) else data
    stated = (str(facts.get(name)) for name in ("http_status_code", "status_code", "status", "code"))
    status = next((int(each) for each in stated if re.fullmatch("[45][0-9][0-9]", each)), None)
    if status is None:
        names = " ".join(said.codes)
        status = next((number for word, number in STATUS_OF if word in names), 500)
    found = _classified(status, {}, said, target)
    return found.restated(f"an error inside the answer: {found.message}", found.retry_after)


def _classified(status: int, headers: Mapping[str, str], said: _ServerWords, target: str | None) -> GatewayError:
    kind = _kind(status, said)
    shown = _cut(said.words, MAX_SHOWN_CHARS) or f"HTTP {status} with an empty body"
    facts: dict[str, Any] = {"target": target, "status": status, "retry_after": _wait(headers, said)}
    if kind is ContextOverflow:
        facts["limit"] = _count(said.fields, "n_ctx") or _number(_LIMITS, said.words)
        facts["length"] = _count(said.fields, "n_prompt_tokens") or _number(_LENGTHS, said.words)
    elif kind is BatchTooLarge:
        facts["max_texts"] = None if "token" in said.words.lower() else _number(_LIMITS, said.words)
    elif kind is BadGeneration:
        facts["failed_generation"] = written = _field_words(said.fields)
        if written:
            shown = f"{shown} (the model wrote: {_cut(written, MAX_SHOWN_CHARS)!r})"
    return kind(f"{shown} (HTTP {status}){_advice(kind, target)}", **facts)


def _kind(status: int, said: _ServerWords) -> type[GatewayError]:
    for rule in RULES:
        if status not in rule.statuses:
            continue
        if rule.codes and not rule.codes & said.codes:
            continue
        if rule.words and not re.search(rule.words, said.words, re.IGNORECASE):
            continue
        return rule.kind
    return BadResponse


_ADVICE = {
    AuthenticationFailed: "check the key: `hf-gateway doctor` shows where it comes from",
    PermissionDenied: "the token needs the scope 'Make calls to Inference Providers': https://huggingface.co/settings/tokens",
    GatedModel: "accept the licence on the model's page, with the account the token belongs to",
    PaymentRequired: "buy credits, or add a target that is not billed to this account, such as 'local'",
}


def _advice(kind: type[GatewayError], target: str | None) -> str:
    if kind is PermissionDenied and target and not kind_of(target.partition(":")[0]).routed:
        return ""
    return f"; {_ADVICE[kind]}" if kind in _ADVICE else ""


def _wait(headers: Mapping[str, str], said: _ServerWords) -> float | None:
    """Return the seconds after which the server wants the next request: from a header, or until its model is loaded."""
    if (stated := retry_after_seconds(headers)) is not None:
        return stated
    estimate = (said.fields or {}).get("estimated_time")
    if isinstance(estimate, bool) or not isinstance(estimate, int | float) or not estimate >= 0:
        return None
    return float(min(estimate, MAX_RETRY_AFTER_S))


def _read_words(body: bytes) -> _ServerWords:
    """Find the server's message and codes, in whatever form it sends them."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, list) and len(parsed) == 1 and isinstance(parsed[0], dict):
        parsed = parsed[0]  # Google's OpenAI-compatible servers wrap the error in a list
    if isinstance(parsed, dict):
        return _words_in(parsed)
    if parsed is not None:
        return _ServerWords(single_line(parsed))
    text = body[: 4 * MAX_READ_CHARS].decode("utf-8", "replace").strip()
    if text[:1] == "<":
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = f"an HTML page{' titled ' + repr(title[1].strip()) if title else ''} instead of an answer"
    return _ServerWords(single_line(text))


def _words_in(data: Mapping[str, Any]) -> _ServerWords:
    """Read an object: its message, its codes, and those of nested errors."""
    layers = list(_layers(data))
    found = next((data[key] for key in _MESSAGE_FIELDS if data.get(key)), data)
    if isinstance(found, dict):
        found = found.get("message", found)
    words = single_line(found)
    if (behind := _text_after(data)) and behind not in words:
        words = f"{words}: {behind}"
    codes = (
        str(layer.get(name))[:MAX_CODE_CHARS].lower() for layer in layers for name in _CODE_FIELDS if name in layer
    )
    return _ServerWords(words, frozenset(codes), {name: layer[name] for layer in reversed(layers) for name in layer})


def _layers(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the object and the nested objects that describe the error, including one that is quoted as text."""
    yield data
    error = data.get("error")
    quoted = (
        error if isinstance(error, str) else error.get("message") if isinstance(error, dict) else data.get("message")
    )
    for inner in (error, data.get("detail"), data.get("innererror"), _quoted(quoted)):
        if isinstance(inner, dict):
            yield from _layers_below(inner)


def _layers_below(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield error
    for name in ("error", "innererror"):
        if isinstance(inner := error.get(name), dict):
            yield inner


def _quoted(text: Any) -> Any:
    """Parse another server's error that this one passes on as the text of its message."""
    if not isinstance(text, str) or text[:1] != "{":
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text_after(data: Mapping[str, Any]) -> str:
    """Return the message of the provider behind OpenRouter, which says more than OpenRouter's own."""
    error = data.get("error")
    metadata = error.get("metadata") if isinstance(error, dict) else None
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return single_line(raw) if isinstance(raw, str) else ""


def single_line(value: Any) -> str:
    """Return a server's message on one line, limited in length, without the caller's input and without files in it."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value)
        except (ValueError, RecursionError):
            value = "an answer that is nested too deeply"
    text = _ECHO.sub(r"\1", value[:MAX_SEARCHED_CHARS])
    for pattern in _BYTES:
        text = pattern.sub("[bytes]", text)
    return " ".join(text[:MAX_READ_CHARS].split())


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def _number(patterns: Iterable[re.Pattern[str]], words: str) -> int | None:
    """Return the number that the first matching pattern finds."""
    for pattern in patterns:
        if found := pattern.search(words):
            return int(next(group for group in found.groups() if group))
    return None


def _count(fields: Mapping[str, Any] | None, name: str) -> int | None:
    value = (fields or {}).get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_TOKENS else None


def _field_words(fields: Mapping[str, Any] | None) -> str | None:
    value = (fields or {}).get("failed_generation")
    return value[:MAX_GENERATION_CHARS] if isinstance(value, str) and value else None
