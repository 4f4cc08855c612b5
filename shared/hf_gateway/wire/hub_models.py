"""The Hub's API for models: one model, a list, the tree of files; and the meaning of its refusals.

Sources: huggingface_hub's `hf_api.py` and `utils/_http.py`, and recorded answers of huggingface.co. A request for an unknown
repository without a token is answered by 401 without a code, so that private and missing repositories look the same.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urljoin

from hf_gateway.errors import (
    AuthenticationFailed,
    BadResponse,
    GatedModel,
    GatewayError,
    KeyMissing,
    ModelNotFound,
    PermissionDenied,
    visible,
)
from hf_gateway.keys.credentials import Credential, origin_of
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.hub_model import ModelFile, ModelMetadata
from hf_gateway.wire.classify import classify
from hf_gateway.wire.http import get, read_json

TARGET = "the Hub"
SORTS = {"downloads": "downloads", "likes": "likes", "trending": "trendingScore", "updated": "lastModified"}
LISTED = (
    "author",
    "cardData",
    "createdAt",
    "disabled",
    "downloads",
    "gated",
    "inferenceProviderMapping",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "private",
    "safetensors",
    "sha",
    "tags",
    "trendingScore",
)
"""The fields requested for each model of a list. Not `siblings`: lists have no sizes, and a repository may have many files."""
_LINK_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_RATE = re.compile(r'"?(?P<kind>\w+)"?\s*;\s*r\s*=\s*(?P<left>\d{1,18})\s*;\s*t\s*=\s*(?P<reset>\d{1,18})(?!\d)')
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_MAX_INTEGER = 2**63 - 1
"""Maximum of any count: what a database can store, and far more than any real value."""
MAX_SENTENCE_CHARS = 300
"""Maximum length of the Hub's message that an error repeats."""
_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - the Hub's message


@dataclass(frozen=True)
class RateLimit:
    """The state of the Hub's rate limit in the current window."""

    kind: str
    """`api` or `resolvers`."""
    left: int
    """Remaining requests."""
    reset: float
    """Seconds until the next window."""


def encode_model(hub: str, model: str, revision: str = "main", etag: str | None = None) -> HttpRequest:
    """Request a model with the sizes of its files; by its revision, which mirrors support as well.

    Args:
        hub: the Hub's base URL.
        model: the model's name there.
        revision: branch, tag or commit.
        etag: ETag of the answer that is known already, if there is one.
    """
    return _get_with_etag(f"{hub}/api/models/{quote(model)}/revision/{quote(revision, safe='')}?blobs=true", etag)


def encode_providers(hub: str, model: str, etag: str | None = None) -> HttpRequest:
    """Request the providers of a model; a separate request, since the Hub does not combine `expand` with sizes.

    Args:
        hub: the Hub's base URL.
        model: the model's name there.
        etag: ETag of the answer that is known already, if there is one.
    """
    fields = urlencode([("expand", "inferenceProviderMapping"), ("expand", "trendingScore"), ("expand", "gguf")])
    return _get_with_etag(f"{hub}/api/models/{quote(model)}?{fields}", etag)


def encode_list(hub: str, query: str, tags: Sequence[str], sort: str, limit: int) -> HttpRequest:
    """Request a list of models.

    Args:
        hub: the Hub's base URL.
        query: words to search for; "" for all models.
        tags: tags that every result must have.
        sort: a key of `SORTS`; descending, the only order that the Hub offers.
        limit: entries per page.
    """
    fields: list[tuple[str, str]] = [("search", query)] if query else []
    fields += [("filter", tag) for tag in tags]
    fields += [("sort", SORTS[sort]), ("limit", str(limit))]
    fields += [("expand", name) for name in LISTED]
    return get(f"{hub}/api/models?{urlencode(fields)}")


def encode_tree(hub: str, model: str, commit: str) -> HttpRequest:
    """Request all files of a revision.

    Args:
        hub: the Hub's base URL.
        model: the model's name there.
        commit: the revision.
    """
    return get(f"{hub}/api/models/{quote(model)}/tree/{quote(commit, safe='')}?recursive=true&expand=false")


def next_page(response: HttpResponse, asked: HttpRequest) -> HttpRequest | None:
    """Return the request for the next page of a list, or None after the last one.

    Args:
        response: the current page.
        asked: the request for it.

    Raises:
        BadResponse: the next page is on another server.
    """
    found = _LINK_NEXT.search(response.headers.get("link", ""))
    if found is None:
        return None
    try:
        url = urljoin(asked.url, found[1])
        elsewhere = origin_of(url) != origin_of(asked.url)
    except ValueError:
        raise BadResponse("the Hub names a next page with an invalid URL", target=TARGET) from None
    if elsewhere:
        raise BadResponse("the Hub names a next page on another server, which is not asked", target=TARGET)
    return get(url)


def decode_model(response: HttpResponse, now: datetime) -> ModelMetadata:
    """Read the answer to `encode_model`.

    Args:
        response: the server's response.
        now: the current time.

    Raises:
        BadResponse: it is not a model.
    """
    data = read_json(response, target=TARGET)
    if not isinstance(data, dict) or not (_string_or_none(data.get("id")) or _string_or_none(data.get("modelId"))):
        raise BadResponse("does not answer with a model; is this the Hub?", target=TARGET)
    return model_of(data, now, complete=True)


def decode_list(response: HttpResponse, now: datetime) -> list[ModelMetadata]:
    """Read one page of a list.

    Args:
        response: the server's response.
        now: the current time.

    Raises:
        BadResponse: it is not a list of models.
    """
    data = read_json(response, target=TARGET)
    if not isinstance(data, list):
        raise BadResponse("does not answer with a list of models; is this the Hub?", target=TARGET)
    return [
        model_of(each, now, complete=False)
        for each in data
        if isinstance(each, dict) and _string_or_none(each.get("id"))
    ]


def decode_tree(response: HttpResponse) -> list[ModelFile]:
    """Read the files on one page of a tree; their paths are not checked yet.

    Raises BadResponse, also for an empty page that names a next one: no Hub has such pages, and they would not end.
    """
    data = read_json(response, target=TARGET)
    if not isinstance(data, list):
        raise BadResponse("does not answer with a list of files; is this the Hub?", target=TARGET)
    if not data and _LINK_NEXT.search(response.headers.get("link", "")):
        raise BadResponse("the Hub's list of files continues after an empty page", target=TARGET)
    found = []
    for each in data:
        if isinstance(each, dict) and each.get("type") == "file" and _is_text(each.get("path")):
            large = _dict(each.get("lfs"))
            size = _count(large.get("size", each.get("size")))
            found.append(ModelFile(each["path"], size, _hexadecimal(large.get("oid") or each.get("oid"))))
    return found


def decode_providers(response: HttpResponse) -> dict[str, Any]:
    """Read the providers of a model, as fields of ModelMetadata; the mapping is a dict by provider or a list."""
    data = _dict(read_json(response, target=TARGET))
    found: dict[str, Any] = {"providers": _providers(data.get("inferenceProviderMapping"))}
    if (trending := _number(data.get("trendingScore"))) is not None:
        found["trending"] = trending
    if gguf := _dict(data.get("gguf")):
        found["gguf"] = _gguf(gguf)
    return found


def model_of(data: Mapping[str, Any], now: datetime, *, complete: bool) -> ModelMetadata:
    """Read a model as the Hub describes it; what is missing, of another type or out of range is left out.

    Args:
        data: the decoded description.
        now: the current time.
        complete: whether it is a model's own page rather than an entry of a list.
    """
    card = _writable(_dict(data.get("cardData")))
    tags = tuple(tag for tag in _list(data.get("tags")) if _is_text(tag))
    files = _files(data.get("siblings"))
    sizes = [file.size for file in files if file.size is not None]
    name = _string_or_none(data.get("id")) or str(data.get("modelId"))
    gated = data.get("gated")
    return ModelMetadata(
        id=name,
        author=_string_or_none(data.get("author")) or (name.partition("/")[0] if "/" in name else None),
        sha=_string_or_none(data.get("sha")),
        downloads=_count(data.get("downloads")) or 0,
        likes=_count(data.get("likes")) or 0,
        trending=_number(data.get("trendingScore")),
        tags=tags,
        pipeline_tag=_string_or_none(data.get("pipeline_tag")),
        library_name=_string_or_none(data.get("library_name")),
        license=_licenses(card, tags),
        size=sum(sizes) if complete and files and len(sizes) == len(files) else None,
        created=_datetime(data.get("createdAt")),
        modified=_datetime(data.get("lastModified")),
        files=files,
        card_data=card,
        gated=gated if gated in ("auto", "manual") else (False if gated is False else None),
        private=data.get("private") is True,
        disabled=data.get("disabled") is True,
        parameters=_parameters(_dict(data.get("safetensors")).get("parameters")),
        gguf=_gguf(_dict(data.get("gguf"))),
        config=_config(_dict(data.get("config"))),
        providers=_providers(data.get("inferenceProviderMapping")),
        complete=complete,
        cached_at=now,
    )


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Parse `RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers). headers: names in lower case."""
    found = _RATE.search(headers.get("ratelimit", ""))
    return RateLimit(found["kind"], int(found["left"]), float(found["reset"])) if found else None


def refusal(response: HttpResponse, what: str, *, sent: Credential | None) -> GatewayError:
    """Return the error for a refusal, with the Hub's own message if it says more than the status.

    Args:
        response: the refusal.
        what: the model or the request, for the message.
        sent: the key that was sent, or None.
    """
    code = response.headers.get("x-error-code", "")
    said = _sentence(response, sent)
    with_token = sent is not None
    status = response.status
    also = f"; the Hub says: {said}" if said else ""
    page = f"https://huggingface.co/{what.partition('@')[0]}"
    if code == "GatedRepo":
        if with_token:
            return GatedModel(
                f"{what} is gated: accept its licence at {page}, with the account the token belongs to{also}",
                target=TARGET,
                status=status,
            )
        return KeyMissing(
            f"{what} is gated: accept its licence at {page}, then set HF_TOKEN or run `hf-gateway login`",
            target=TARGET,
            status=status,
        )
    if code == "RevisionNotFound":
        return ModelNotFound(f"{what} has no such revision", target=TARGET, status=status)
    if code == "RepoNotFound" or status == 404 or (status == 401 and not with_token):
        return ModelNotFound(
            f"there is no {what!r} on the Hub, or it is private and "
            + ("the token may not read it" if with_token else "needs a token: set HF_TOKEN or run `hf-gateway login`"),
            target=TARGET,
            status=status,
        )
    if status == 401:
        return AuthenticationFailed(
            f"the Hub refuses the token ({said if said == _BAD_TOKEN else 'HTTP 401'}); make a new one at "
            "https://huggingface.co/settings/tokens",
            target=TARGET,
            status=status,
        )
    if status == 403:
        who = "the token" if with_token else "a request without a token"
        return PermissionDenied(f"{who} may not do this to {what} (HTTP 403){also}", target=TARGET, status=status)
    return classify(status, response.headers, response.body, target=TARGET)


def _sentence(response: HttpResponse, sent: Credential | None) -> str:
    """Return the Hub's message on one line, without the key."""
    said: Any = response.headers.get("x-error-message", "")
    if not said:
        try:
            said = _dict(json.loads(response.body)).get("error")
        except (ValueError, RecursionError):
            return ""
    if not isinstance(said, str):
        return ""
    line = visible(" ".join(said.split()))
    line = sent.secret.scrub(line) if sent is not None else line
    return line if len(line) <= MAX_SENTENCE_CHARS else f"{line[:MAX_SENTENCE_CHARS]}…"


def _get_with_etag(url: str, etag: str | None) -> HttpRequest:
    asked = get(url)
    return HttpRequest(asked.method, asked.url, headers={**asked.headers, "if-none-match": etag}) if etag else asked


def _licenses(card: Mapping[str, Any], tags: Sequence[str]) -> tuple[str, ...]:
    said = card.get("license")
    if one := _string_or_none(said):
        return (one,)
    if isinstance(said, list) and (several := tuple(each for each in said if _string_or_none(each))):
        return several
    return tuple(tag.removeprefix("license:") for tag in tags if tag.startswith("license:"))


def _files(siblings: Any) -> tuple[ModelFile, ...]:
    if not isinstance(siblings, list):
        return ()
    return tuple(
        ModelFile(
            each["rfilename"],
            _count(each.get("size")),
            _hexadecimal(_dict(each.get("lfs")).get("sha256") or each.get("blobId")),
        )
        for each in siblings
        if isinstance(each, dict) and _is_text(each.get("rfilename"))
    )


def _providers(mapping: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(mapping, dict):
        mapping = [{"provider": name, **each} for name, each in mapping.items() if isinstance(each, dict)]
    if not isinstance(mapping, list):
        return ()
    rows = [each for each in mapping if isinstance(each, dict) and isinstance(each.get("provider"), str)]
    kept = ("provider", "status", "task", "providerId")
    return tuple({name: each[name] for name in kept if isinstance(each.get(name), str)} for each in rows)


def _gguf(data: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {name: _count(data.get(name)) for name in ("total", "context_length")}
    read["architecture"] = _string_or_none(data.get("architecture"))
    return {name: value for name, value in read.items() if value is not None}


def _parameters(data: Any) -> dict[str, int]:
    """Return how many numbers each dtype has; an empty dict if one count is unreadable, since a part would pass for the whole."""
    counts = {dtype: _count(each) for dtype, each in _dict(data).items()}
    return {dtype: each for dtype, each in counts.items() if each is not None} if None not in counts.values() else {}


def _config(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the tokenizer's part, a chat template of many kilobytes."""
    return _writable(
        {name: value for name, value in data.items() if name not in ("tokenizer_config", "chat_template_jinja")}
    )


def _writable(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out NaN and infinity, which parsers accept and JSON does not have."""
    if _is_writable(data):
        return data
    return {name: value for name, value in data.items() if _is_writable(value)}


def _is_writable(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _hexadecimal(value: Any) -> str | None:
    """Return a digest, which becomes a file name, or None for any other value."""
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", value) else None


def _datetime(value: Any) -> datetime | None:
    """Parse a time; None for one that is out of range in some time zone."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is None:
            return None
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        found.astimezone(UTC)
        found.timestamp()
    except (ValueError, OverflowError):
        return None
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _string_or_none(value: Any) -> str | None:
    return value if _is_text(value) and value else None


def _is_text(value: Any) -> bool:
    """Return whether a value is text that UTF-8 can encode, as URLs and paths must be; JSON allows more."""
    return isinstance(value, str) and not _SURROGATES.search(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INTEGER else None


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
