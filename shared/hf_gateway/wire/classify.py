"""Sorts a server's answer that is not a success into the class that says what may be done about it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from hf_gateway.errors import (
    AttemptTimedOut,
    AuthenticationFailed,
    BadResponse,
    BatchTooLarge,
    ContentFiltered,
    ContextOverflow,
    GatedModel,
    GatewayError,
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    PermissionDenied,
    RateLimited,
    ServerError,
)
from hf_gateway.retry_after import RETRY_AFTER_CAP, retry_after_seconds

# The table. First match wins: (statuses, pattern searched in the server's message or None, class). It is read top to
# bottom, so a line with a pattern stands above the plain line of its status. The patterns come from the servers' own
# words: TEI router/src/http/server.rs, TGI router/src/validation.rs, Ollama server/routes.go, vLLM's and llama.cpp's
# OpenAI servers, and the recordings of the Hugging Face router.
_TOO_LONG = (
    r"must have less than \d+ tokens|(maximum|exceeds?).{0,40}context|context (length|window|size)|too (long|many tokens)"
    r"|maximum (sequence|input) length|input length exceeds|tokens? .{0,20}exceed|reduce the length"
    r"|tokens.{0,40} must be <= \d+"
)
_BATCH = (
    r"batch size|length limit exceeded|payload too large|body.{0,20}(limit|too large)|too many inputs"
    r"|at most \d+ (items|inputs)|number of (inputs|texts)|array too long|more batches|max_tokens_per_request"
    r"|tokens per (request|(submitted )?batch)"
)
_CREDENTIAL = r"api[_ -]?key|access token|credential|invalid (user )?token|authorization header|unauthori[sz]ed"
_FILTERED = r"content (policy|filter|management)|content_filter|safety|moderation|flagged"
_LOADING = r"loading|estimated_time|initiali[sz]ing|starting"
_GATED = r"gated|awaiting (a )?review|accept the|agree to|must have access|ask for access"
_LACKS = (
    r"does not support|not an? (embedding|multimodal) model|not supported for task|is not embedding|enable-auto-tool-choice"
    r"|cannot be combined with tool"
)
_NO_MODEL = r"model .{0,120}not found|unknown model|does not exist|not supported by provider"
_RULES: tuple[tuple[range, str | None, type[GatewayError]], ...] = (
    (range(300, 400), None, BadResponse),
    (range(400, 401), _CREDENTIAL, AuthenticationFailed),
    (range(400, 401), _FILTERED, ContentFiltered),
    (range(400, 401), _LACKS, ModelNotFound),
    (range(400, 401), _NO_MODEL, ModelNotFound),
    (range(413, 414), _BATCH, BatchTooLarge),
    (range(413, 414), _TOO_LONG, ContextOverflow),
    (range(413, 414), None, BatchTooLarge),
    (range(422, 423), _BATCH, BatchTooLarge),
    (range(400, 401), _BATCH, BatchTooLarge),
    (range(400, 401), _TOO_LONG, ContextOverflow),
    (range(422, 423), _TOO_LONG, ContextOverflow),
    (range(401, 402), None, AuthenticationFailed),
    (range(402, 403), None, PaymentRequired),
    (range(403, 404), _GATED, GatedModel),
    (range(403, 404), None, PermissionDenied),
    (range(404, 405), None, ModelNotFound),
    (range(408, 409), None, AttemptTimedOut),
    (range(424, 425), _LACKS, ModelNotFound),
    (range(424, 425), None, ServerError),
    (range(429, 430), None, RateLimited),
    (range(503, 504), _LOADING, ModelLoading),
    (range(503, 504), None, Overloaded),
    (range(529, 530), None, Overloaded),
    (range(500, 600), None, ServerError),
    (range(400, 500), None, InvalidRequest),
)

_NUMBER_TAKEN = re.compile(
    r"(?:less than|maximum allowed batch size|maximum context length is|at most|limit of|maximum length|maximum|must be <=)"
    r"\s+(\d+)(?!\d)(?P<tokens>\s+tokens)?"
)


def classify(status: int, headers: Mapping[str, str], body: bytes, *, target: str | None = None) -> GatewayError:
    """Turn an HTTP answer that is not a success into the error that says what may be done about it.

    headers: names in lower case. body: as received; a page of HTML or a list is as good as JSON here.
    """
    text, code, seconds = _message(body)
    words = text or f"HTTP {status} with an empty body"
    retry_after = retry_after_seconds(headers)
    if retry_after is None and seconds is not None:
        retry_after = min(seconds, RETRY_AFTER_CAP)
    kind = next(
        (
            found
            for statuses, pattern, found in _RULES
            if status in statuses and (pattern is None or re.search(pattern, f"{text} {code}", re.IGNORECASE))
        ),
        BadResponse,
    )
    facts: dict[str, Any] = {"target": target, "status": status, "retry_after": retry_after}
    limit = _NUMBER_TAKEN.search(text)
    if kind is ContextOverflow:
        facts["limit"] = int(limit[1]) if limit else None
    elif kind is BatchTooLarge:
        facts["max_texts"] = int(limit[1]) if limit and not limit["tokens"] else None
    return kind(f"{words} (HTTP {status}){_advice(kind, target)}", **facts)


_ADVICE = {
    AuthenticationFailed: "check the key: `hf-gateway doctor` shows where it comes from",
    PermissionDenied: "the token needs the scope 'Make calls to Inference Providers': https://huggingface.co/settings/tokens",
    GatedModel: "accept the licence on the model's page, with the account the token belongs to",
    PaymentRequired: "buy credits, or add a target that is not billed to this account, such as 'local'",
}


def _advice(kind: type[GatewayError], target: str | None) -> str:
    if kind is PermissionDenied and target and not target.startswith("hf"):
        return ""
    return f"; {_ADVICE[kind]}" if kind in _ADVICE else ""


def _message(body: bytes) -> tuple[str, str, float | None]:
    """Find the server's own words, its code for them, and its estimate of the seconds until the model is loaded."""
    text = body[:20_000].decode("utf-8", "replace").strip()
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    code, seconds = "", None
    if isinstance(parsed, dict):
        estimate = parsed.get("estimated_time")
        seconds = float(estimate) if isinstance(estimate, int | float) else None
        found = next((parsed[key] for key in ("error", "message", "detail", "errors") if parsed.get(key)), parsed)
        if isinstance(found, dict):
            code = str(found.get("code") or "")
            found = found.get("message", found)
        text = found if isinstance(found, str) else json.dumps(found)
    elif parsed is not None:
        text = parsed if isinstance(parsed, str) else json.dumps(parsed)
    elif text[:1] == "<":
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = f"an HTML page{' titled ' + repr(title[1].strip()) if title else ''} instead of an answer"
    text = " ".join(text.split())
    return (text if len(text) <= 400 else text[:400] + "…"), code, seconds
