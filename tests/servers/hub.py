"""The Hub as far as one reads it: models and lists of them, files and where they really lie, accounts, rate limits.

After huggingface_hub, which is the judge, the recorded `GET /api/models/…` (2025) and their headers. What the recordings do not
hold (limits, redirects, the 401 without a code for what nobody may know of) is as the Hub's documentation and that client say.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.router import REQUEST_ID, FakeHub, HubModel

COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
WINDOW = 300
_FILE = re.compile(r"/(?P<id>(?!api/)[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_CACHED_FILE = re.compile(r"/api/resolve-cache/models/(?P<id>[^/]+/[^/]+)/(?P<revision>[^/]+)/(?P<file>.+)")
_MODEL = re.compile(r"/api/models/(?P<id>[^/]+(?:/[^/]+)?)(?P<rest>(?:/(?:revision|tree|auth-check).*)?)")


@dataclass(frozen=True)
class Listed(HubModel):
    """A repository with all that the Hub says of one. declared: path → size of files that are named and do not exist."""

    declared: Mapping[str, int] = field(default_factory=dict)
    downloads: int = 1000
    likes: int = 10
    trending: float = 1
    modified: str = "2025-03-06T13:37:44.000Z"
    card: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    gguf: Mapping[str, Any] = field(default_factory=dict)
    disabled: bool = False


def whoami(name: str, role: str = "read", **token: Any) -> dict[str, Any]:
    """Return what the Hub says of a token; `token` is what stands beside its role."""
    made = {"displayName": "laptop", "role": role, "createdAt": "2026-01-01T00:00:00.000Z", **token}
    return {
        "type": "user",
        "id": "5e7565",
        "name": name,
        "fullname": name.title(),
        "isPro": False,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": made},
    }


class Storage(Loopback):
    """Where large files really lie: another host, which answers nobody who brings a token."""

    def __init__(self) -> None:
        """Start it, empty."""
        self.contents: dict[str, bytes] = {}
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        """Give the bytes, or the part of them that is asked for."""
        content = self.contents.get(request.path.removeprefix("/"))
        if content is None:
            return Reply(404, "NoSuchKey")
        if "authorization" in request.headers:
            return Reply(400, "Only one auth mechanism allowed")
        return _bytes(content, request, {"etag": '"storage"', "content-type": "binary/octet-stream"})


class ReadHub(FakeHub):
    """The Hub with `models`; use it as a context manager, as any of these servers.

    Args:
        models: id → repository.
        accounts: token → what whoami says of it; a token that is not there is refused everywhere.
        moved: old id → new one.
        storage: where large files lie; without it the Hub gives them itself.
        page: how many models or files a page has at most.

    `left` is how many requests of each kind (`api`, `resolvers`) the window still allows, `reset` the seconds until it ends.
    """

    def __init__(
        self,
        models: Mapping[str, HubModel] | None = None,
        *,
        accounts: Mapping[str, Mapping[str, Any]] | None = None,
        moved: Mapping[str, str] | None = None,
        storage: Storage | None = None,
        page: int = 1000,
    ) -> None:
        """Start it."""
        self.accounts = dict(accounts if accounts is not None else {"hf_test": whoami("ada")})
        self.moved = dict(moved or {})
        self.storage = storage
        self.page = page
        self.left = {"api": 500, "resolvers": 3000}
        self.reset = 120
        super().__init__(models or {}, users={token: str(each["name"]) for token, each in self.accounts.items()})

    def handle(self, request: Recorded) -> Reply:
        """Route, count, and add what stands at every answer."""
        kind = "resolvers" if "/resolve/" in request.path or "/resolve-cache/" in request.path else "api"
        limit = {
            "ratelimit": f'"{kind}";r={max(self.left[kind] - 1, 0)};t={self.reset}',
            "ratelimit-policy": f'"fixed window";"{kind}";q=500;w={WINDOW}',
            "x-request-id": REQUEST_ID,
        }
        if self.left[kind] <= 0:
            return Reply(429, {"error": "Too Many Requests"}, limit)
        self.left[kind] -= 1
        reply = self._routed(request)
        if reply.status == 200 and request.path.startswith("/api/models"):
            reply = _tagged(reply, request)
        return Reply(reply.status, reply.body, {**reply.headers, **limit})

    def _routed(self, request: Recorded) -> Reply:
        path = request.target.partition("?")[0]
        if request.bearer is not None and request.bearer not in self.users:
            return super().handle(request)  # which refuses it
        if path == "/api/models":
            return self._list(request)
        if found := _FILE.fullmatch(path) or _CACHED_FILE.fullmatch(path):
            return self._file(request, found)
        if found := _MODEL.fullmatch(path):
            if (new := self.moved.get(unquote(found["id"]))) is not None:
                return _moved(request, f"/api/models/{found['id']}", f"/api/models/{quote(new)}")
            if found["rest"].startswith("/tree"):
                return self._paged(super().handle(request), request)
            if found["id"] not in self.models and request.bearer is None:
                # As observed: what is not there and what is private are answered alike, and without a code.
                return Reply(
                    401,
                    {"error": "Invalid username or password."},
                    {"x-error-message": "Invalid username or password."},
                )
        return super().handle(request)

    def _file(self, request: Recorded, found: re.Match[str]) -> Reply:
        name, revision, file = unquote(found["id"]), unquote(found["revision"]), unquote(found["file"])
        if (new := self.moved.get(name)) is not None:
            return _moved(request, f"/{found['id']}/", f"/{quote(new)}/")
        reply = self._resolve(request, name, revision, file)
        if reply.status >= 300:
            return reply
        model = self.models[name]
        known = model.files[file]
        if known.sha256 is not None and self.storage is not None:
            self.storage.contents[known.sha256] = known.path.read_bytes()
            linked = {
                "x-linked-size": str(known.size),
                "x-linked-etag": f'"{known.sha256}"',
                "x-repo-commit": model.sha,
            }
            # By another name than the Hub's, since huggingface_hub takes a redirect to the same host for one within the Hub.
            return Reply(302, b"", {"location": f"http://localhost:{self.storage.port}/{known.sha256}", **linked})
        if known.sha256 is None and request.path.startswith(f"/{name}/"):
            there = f"/api/resolve-cache/models/{found['id']}/{model.sha}/{found['file']}"
            return Reply(307, b"", {"location": there, "x-repo-commit": model.sha, "etag": f'"{known.blob_id}"'})
        return reply

    def _list(self, request: Recorded) -> Reply:
        query = request.query
        wanted = " ".join(query.get("search", [])).lower().split()
        tags = set(query.get("filter", []))
        sort = {"likes": "likes", "trendingScore": "trending", "lastModified": "modified"}.get(
            query.get("sort", ["downloads"])[0], "downloads"
        )
        found = [
            (name, model)
            for name, model in self.models.items()
            if all(word in name.lower() for word in wanted)
            and tags <= {*model.tags, model.pipeline_tag, model.library_name}
            and (not model.private or request.bearer in model.readers)
        ]
        found.sort(key=lambda each: (getattr(each[1], sort, 0), each[0]), reverse=True)
        start = int(query.get("cursor", ["0"])[0])
        count = min(int(query.get("limit", [self.page])[0]), self.page)
        shown = [self._info(name, model, query) for name, model in found[start : start + count]]
        more = start + count < len(found)
        return Reply(200, shown, self._next(request, start + count) if more else {})

    def _paged(self, reply: Reply, request: Recorded) -> Reply:
        if reply.status != 200 or not isinstance(reply.body, list):
            return reply
        start = int(request.query.get("cursor", ["0"])[0])
        more = start + self.page < len(reply.body)
        headers = {**reply.headers, **(self._next(request, start + self.page) if more else {})}
        return Reply(200, reply.body[start : start + self.page], headers)

    def _next(self, request: Recorded, cursor: int) -> dict[str, str]:
        target = re.sub(r"&cursor=\d+", "", request.target)
        return {"link": f'<{self.url}{target}&cursor={cursor}>; rel="next"'}

    def _whoami(self, token: str | None) -> Reply:
        if token is None:
            return super()._whoami(token)
        return Reply(200, dict(self.accounts[token]))

    def _info(self, name: str, model: HubModel, query: Mapping[str, list[str]]) -> dict[str, Any]:
        info = super()._info(name, model, query)
        if not isinstance(model, Listed):
            return info
        said: dict[str, Any] = {
            "downloads": model.downloads,
            "likes": model.likes,
            "trendingScore": model.trending,
            "lastModified": model.modified,
            "cardData": dict(model.card),
            "disabled": model.disabled,
            "config": {**info.get("config", {}), **model.config},
        }
        if model.parameters:
            said["safetensors"] = {"parameters": dict(model.parameters), "total": sum(model.parameters.values())}
        if model.gguf:
            said["gguf"] = dict(model.gguf)
        if model.declared:
            sized = "blobs" in query
            said["siblings"] = [
                {"rfilename": path} | ({"size": size, "blobId": "0" * 40} if sized else {})
                for path, size in model.declared.items()
            ]
            said["usedStorage"] = sum(model.declared.values())
        if "expand" in query:
            return info | {key: value for key, value in said.items() if key in query["expand"]}
        del said["trendingScore"]  # not said unless asked for
        return info | said


def _moved(request: Recorded, old: str, new: str) -> Reply:
    return Reply(307, b"", {"location": request.target.replace(old, new, 1)})


def _tagged(reply: Reply, request: Recorded) -> Reply:
    """Add the weak ETag that the Hub computes from an answer, and answer 304 to whoever has that one already."""
    etag = f'W/"{len(reply.payload):x}-{hashlib.sha1(reply.payload, usedforsecurity=False).hexdigest()[:27]}"'
    if request.headers.get("if-none-match") == etag:
        return Reply(304, b"", {"etag": etag})
    return Reply(200, reply.body, {**reply.headers, "etag": etag})


def _bytes(content: bytes, request: Recorded, headers: Mapping[str, str]) -> Reply:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if found is None:
        return Reply(200, content, {**headers, "accept-ranges": "bytes"})
    start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    if start > end:
        return Reply(416, b"", {"content-range": f"bytes */{len(content)}"})
    return Reply(206, content[start : end + 1], {**headers, "content-range": f"bytes {start}-{end}/{len(content)}"})
