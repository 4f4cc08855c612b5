"""One file of a repository, over HTTP: from where it broke off, within bounded waits, checked against the Hub's digest.

Not through huggingface_hub: it keeps nothing of a file that broke off, waits as long as a server says, follows a redirect to
wherever it leads, and does not look at what it got.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from hf_gateway.errors import (
    AttemptTimedOut,
    BadResponse,
    ConnectFailed,
    GatewayError,
    InvalidRequest,
    RateLimited,
    ServerError,
)
from hf_gateway.http.transport import HttpTransport
from hf_gateway.hub import names
from hf_gateway.hub.errors import of_the_hub
from hf_gateway.keys.credentials import Credential, origin_of
from hf_gateway.runtime.effects import Open, Opened
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.hub_model import ModelFile
from hf_gateway.values.redaction import shown_url
from hf_gateway.wire.hub_models import TARGET, rate_limit, refusal
from hf_gateway.wire.retry_after import retry_after_seconds

CHUNK_BYTES = 2**20
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""Seconds with next to nothing, after which the connection is taken for dead."""
SLOWEST_BYTES_S = 1024
"""A connection that brings less than this is as good as silent: a byte now and then would keep a caller for ever."""
TRIES = 5
"""In a row that bring next to nothing."""
MAX_WAIT_S = 300.0
"""Seconds for which a full rate limit is waited out: a window of the Hub's."""
MAX_REDIRECTS = 5
MAX_FILE_BYTES = 50 * 10**9
"""Of one file: the Hub gives larger ones over its Xet protocol only."""
_BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long a download bears with a Hub that does not get on.

    silence_s: seconds with next to nothing; tries: in a row that bring as little; rest_s: seconds that the Hub may ask for;
    slowest_bytes_s: what is next to nothing, in bytes a second.
    """

    silence_s: float
    tries: int
    rest_s: float
    slowest_bytes_s: int = SLOWEST_BYTES_S


@dataclass(frozen=True)
class DownloadSource:
    """A commit of a repository, and how to read it."""

    endpoint: str
    model: str
    commit: str
    credential: Credential | None

    def url(self, path: str) -> str:
        """Where the Hub has a file."""
        return f"{self.endpoint}/{quote(self.model)}/resolve/{self.commit}/{quote(path)}"


class Transfer:
    """Brings files into partial ones; for several threads at once.

    pause: waits so many seconds, and says whether to stop; here: is told how many bytes of a file there are, and raises to stop.
    """

    def __init__(
        self,
        source: DownloadSource,
        pause: Callable[[float], bool],
        here: Callable[[ModelFile, int], None],
        patience: Patience | None = None,
    ) -> None:
        """Connect to nobody yet. patience: by default that of a person who watches."""
        self._patience = patience or Patience(READ_TIMEOUT_S, TRIES, MAX_WAIT_S)
        self._least = self._patience.slowest_bytes_s * self._patience.silence_s
        self._source = source
        self._pause = pause
        self._here = here
        self._transport = HttpTransport()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def fetch(self, file: ModelFile, part: Path) -> str:
        """Bring a file into `part`, going on with what is there; returns its digest.

        Raises:
            BadResponse: it is not what the Hub says it is; the part is deleted.
            ConnectFailed, AttemptTimedOut, RateLimited, ServerError: the part is kept.
            ModelNotFound, GatedModel, KeyMissing, AuthenticationFailed, PermissionDenied: as the Hub says.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        failed = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            failure: GatewayError | None = None
            try:
                wait = self._try(file, part, before)
            except (_Broken, _Stalled) as error:
                failure, wait = self._broke(error), None
            if wait is None and failure is None:
                return self._verified_digest(file, part)
            failed = 1 if part.exists() and part.stat().st_size >= before + self._least else failed + 1
            if failed >= self._patience.tries:
                busy = ServerError(f"the Hub is too busy to give {file.path}", target=TARGET, status=503)
                raise of_the_hub(failure or busy)
            if self._pause(wait if wait is not None else random.uniform(0, min(8.0, 2.0**failed))):  # noqa: S311
                raise Stopped

    def _try(self, file: ModelFile, part: Path, have: int) -> float | None:
        """Ask for what is missing; returns None when it came, or the seconds after which to ask again."""
        if file.size is not None and have >= file.size:
            if have > file.size:
                part.unlink()
                return 0.0
            if have:
                return None
        response, url = self._open(file, {"range": f"bytes={have}-"} if have else {})
        try:
            if response.status == 416:
                part.unlink(missing_ok=True)
                return 0.0
            if response.status not in (200, 206):
                return self._wait_after_refusal(response, url)
            goes_on = response.status == 206 and have > 0
            with part.open("ab" if goes_on else "wb") as out:
                done = mark = have if goes_on else 0
                due = time.monotonic() + self._patience.silence_s
                while piece := self._run_exchange(partial(response.source.read, self._patience.silence_s)):
                    out.write(piece)
                    done += len(piece)
                    self._here(file, done)
                    if file.size is not None and done > file.size:
                        break  # it will be found to be none of the model's
                    if (now := time.monotonic()) >= due:
                        if done < mark + self._least:
                            raise _Stalled
                        mark, due = done, now + self._patience.silence_s
        finally:
            response.source.close()
        return None

    def _open(self, file: ModelFile, headers: dict[str, str]) -> tuple[Opened, str]:
        """Follow the Hub to where the file lies; the token goes to the Hub alone."""
        url = self._source.url(file.path)
        # What is compressed on the way can be neither resumed nor counted.
        headers = {"accept-encoding": "identity", **headers}
        for _ in range(MAX_REDIRECTS):
            wish = Open(
                HttpRequest("GET", url, None, headers), self._source.credential, follow=False, max_bytes=MAX_FILE_BYTES
            )
            times = {"timeout": self._patience.silence_s, "connect_timeout": CONNECT_TIMEOUT_S}
            response: Opened = self._run_exchange(partial(self._transport.open, wish, **times, target=TARGET))
            if response.status not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                return response, url
            response.source.close()
            url = self._next(url, response.headers["location"])
        raise BadResponse(f"{file.path} is sent from one place to the next", target=TARGET)

    def _run_exchange(self, exchange: Callable[[], Any]) -> Any:
        """Carry a step of an exchange out; what may be tried again is raised as _Broken or _Stalled."""
        try:
            return exchange()
        except AttemptTimedOut:
            raise _Stalled from None
        except ConnectFailed as error:
            raise _Broken(error.message) from None
        except InvalidRequest as error:
            raise BadResponse(f"a file is sent to where nothing can be asked: {error.message}", target=TARGET) from None

    def _next(self, url: str, location: str) -> str:
        try:
            there = urljoin(url, location)
            parts = urlsplit(there)
            _ = parts.port
        except ValueError:
            raise BadResponse("a file is sent to an invalid URL", target=TARGET) from None
        if parts.scheme not in ("http", "https") or parts.username is not None:
            raise BadResponse(f"a file is sent to {shown_url(there)!r}, which is not called", target=TARGET)
        if origin_of(there) != origin_of(self._source.endpoint):
            names.check_address(there, told_by=f"{origin_of(self._source.endpoint)} sends a file elsewhere: it")
            if parts.scheme == "http" and self._source.endpoint.startswith("https://"):
                raise BadResponse(f"a file is sent to {shown_url(there)!r}, without encryption", target=TARGET)
        return there

    def _wait_after_refusal(self, response: Opened, url: str) -> float:
        """Return how long to wait for what passes; raise what does not."""
        headers, status = response.headers, response.status
        if status in _BUSY:
            limit = rate_limit(headers)
            wait = limit.reset if limit is not None and limit.left == 0 else retry_after_seconds(headers)
            if wait is not None and wait > self._patience.rest_s:
                raise RateLimited(
                    f"asks to be left alone for {wait:.0f} s; what has come is kept, and the next download goes on from there",
                    target=TARGET,
                    status=status,
                    retry_after=wait,
                )
            return wait if wait is not None else random.uniform(0.5, 2.0)  # noqa: S311
        if origin_of(url) != origin_of(self._source.endpoint):
            raise ServerError(
                f"the Hub's storage refuses a file (HTTP {status}); try again", target=TARGET, status=status
            )
        key = self._source.credential
        sent = key if key is not None and key.header_for(url) else None
        raise of_the_hub(refusal(HttpResponse(status, headers, b""), self._source.model, sent=sent))

    def _broke(self, error: "_Broken | _Stalled") -> GatewayError:
        if isinstance(error, _Stalled):
            patience = self._patience
            return AttemptTimedOut(
                f"sent less than {patience.slowest_bytes_s / 1000:.0f} kB a second of {self._source.model} for "
                f"{patience.silence_s:.3g} s, {patience.tries} times; what has come is kept, and the next download goes on "
                "from there",
                target=TARGET,
            )
        return ConnectFailed(
            f"the connection broke while {self._source.model} was downloaded ({error}); what has come is kept, and the next "
            "download goes on from there",
            target=TARGET,
        )

    def _verified_digest(self, file: ModelFile, part: Path) -> str:
        """Return the digest of what came. Raises BadResponse, and deletes it, where it is not what the Hub said."""
        size = part.stat().st_size
        digest = _digest(part, size, file.digest)
        wrong_size = file.size is not None and size != file.size
        if wrong_size or (_is_known_digest(file.digest) and digest != file.digest):
            part.unlink()
            what = f"{size} bytes long, not {file.size}" if wrong_size else "not what the Hub says it is"
            raise BadResponse(f"{file.path} is {what}; it was deleted, try again", target=TARGET)
        return digest


class _Broken(Exception):
    """There is no connection, or no longer."""


class _Stalled(Exception):
    """A body that still comes, and does not get on."""


class Stopped(Exception):
    """Nobody waits for this file any more."""


def check_size(file: ModelFile) -> None:
    """Raise BadResponse for a file that cannot be had over HTTP."""
    if file.size is not None and file.size > MAX_FILE_BYTES:
        raise BadResponse(
            f"{file.path} is larger than {MAX_FILE_BYTES // 10**9} GB, and such files come over Xet only: use `hf download`",
            target=TARGET,
        )


def _is_known_digest(digest: str | None) -> bool:
    return digest is not None and len(digest) in (40, 64) and set(digest) <= set("0123456789abcdef")


def _digest(path: Path, size: int, like: str | None) -> str:
    """Return what the Hub calls a file: git's id where it said one of that length, otherwise the SHA-256."""
    hashed: Any
    if _is_known_digest(like) and len(like or "") == 40:
        hashed = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    else:
        hashed = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _pieces(file):
            hashed.update(piece)
    return str(hashed.hexdigest())


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece
