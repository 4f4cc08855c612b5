"""Downloads a file of a repository over HTTP: resumes it, bounds all waits, and verifies the Hub's digest.

huggingface_hub is not used: it discards interrupted files, waits as long as a server asks for, follows redirects to
any host, and does not verify content.
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
"""Bytes that are read from a file at once."""
CONNECT_TIMEOUT_S = 5.0
"""Seconds to connect."""
READ_TIMEOUT_S = 30.0
"""Seconds without progress after which a connection counts as dead."""
MIN_BYTES_PER_S = 1024
"""Bytes per second below which a connection counts as stalled: otherwise a byte now and then would block a caller for ever."""
TRIES = 5
"""Attempts in a row without progress."""
MAX_WAIT_S = 300.0
"""Seconds for which a rate limit is waited for: a window of the Hub's."""
MAX_REDIRECTS = 5
"""Maximum number of redirects of one request."""
MAX_FILE_BYTES = 50 * 10**9
"""Maximum size of a file: the Hub serves larger ones over its Xet protocol only."""
_BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """Limits for a Hub that makes no progress."""

    silence_s: float
    """Seconds without progress after which a connection counts as dead."""
    tries: int
    """Attempts in a row without progress."""
    rest_s: float
    """Maximum seconds to wait if the Hub asks for it."""
    min_bytes_per_s: int = MIN_BYTES_PER_S
    """Bytes per second below which a connection makes no progress."""


@dataclass(frozen=True)
class DownloadSource:
    """A commit of a repository, and how to read it."""

    endpoint: str
    """Base URL of the Hub."""
    model: str
    """Hub id."""
    commit: str
    """Full hash of the commit."""
    credential: Credential | None
    """Credential for the Hub, if there is one."""

    def url(self, path: str) -> str:
        """Return the URL of a file."""
        return f"{self.endpoint}/{quote(self.model)}/resolve/{self.commit}/{quote(path)}"


class Transfer:
    """Downloads files into partial files; may be used by several threads.

    Args:
        source: the commit to read.
        pause: waits for a number of seconds, and returns whether to stop.
        here: called with a file and its bytes on disk; raises to stop.
        patience: limits; by default those for a person who watches.
    """

    def __init__(
        self,
        source: DownloadSource,
        pause: Callable[[float], bool],
        here: Callable[[ModelFile, int], None],
        patience: Patience | None = None,
    ) -> None:
        """Set the source; nothing is connected yet."""
        self._patience = patience or Patience(READ_TIMEOUT_S, TRIES, MAX_WAIT_S)
        self._least = self._patience.min_bytes_per_s * self._patience.silence_s
        self._source = source
        self._pause = pause
        self._here = here
        self._transport = HttpTransport()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def fetch(self, file: ModelFile, part: Path) -> str:
        """Download a file into `part`, resuming what is there.

        Args:
            file: the file.
            part: path of the partial file.

        Returns:
            The digest of the file.

        Raises:
            BadResponse: size or digest do not match; the partial file is deleted.
            ConnectFailed, AttemptTimedOut, RateLimited, ServerError: the download broke off; the partial file is
                kept.
            ModelNotFound, GatedModel, KeyMissing, AuthenticationFailed, PermissionDenied: the Hub refused.
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
                busy = ServerError(f"the Hub is too busy to send {file.path}", target=TARGET, status=503)
                raise of_the_hub(failure or busy)
            if self._pause(wait if wait is not None else random.uniform(0, min(8.0, 2.0**failed))):  # noqa: S311
                raise Stopped

    def _try(self, file: ModelFile, part: Path, have: int) -> float | None:
        """Request the missing bytes; return None after the last one, or the seconds to wait before the next request."""
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
            resumes = response.status == 206 and have > 0
            with part.open("ab" if resumes else "wb") as out:
                done = mark = have if resumes else 0
                due = time.monotonic() + self._patience.silence_s
                while piece := self._run_exchange(partial(response.source.read, self._patience.silence_s)):
                    out.write(piece)
                    done += len(piece)
                    self._here(file, done)
                    if file.size is not None and done > file.size:
                        break  # the digest will not match
                    if (now := time.monotonic()) >= due:
                        if done < mark + self._least:
                            raise _Stalled
                        mark, due = done, now + self._patience.silence_s
        finally:
            response.source.close()
        return None

    def _open(self, file: ModelFile, headers: dict[str, str]) -> tuple[Opened, str]:
        """Follow the Hub's redirects to the file; the token is sent to the Hub only."""
        url = self._source.url(file.path)
        # A compressed body can be neither resumed nor counted.
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
        raise BadResponse(f"too many redirects for {file.path}", target=TARGET)

    def _run_exchange(self, exchange: Callable[[], Any]) -> Any:
        """Run a step of an exchange; failures that may be retried become _Broken or _Stalled."""
        try:
            return exchange()
        except AttemptTimedOut:
            raise _Stalled from None
        except ConnectFailed as error:
            raise _Broken(error.message) from None
        except InvalidRequest as error:
            raise BadResponse(f"a file is redirected to an invalid address: {error.message}", target=TARGET) from None

    def _next(self, url: str, location: str) -> str:
        try:
            there = urljoin(url, location)
            parts = urlsplit(there)
            _ = parts.port
        except ValueError:
            raise BadResponse("a file is redirected to an invalid URL", target=TARGET) from None
        if parts.scheme not in ("http", "https") or parts.username is not None:
            raise BadResponse(f"a file is redirected to {shown_url(there)!r}, which is not called", target=TARGET)
        if origin_of(there) != origin_of(self._source.endpoint):
            names.check_address(there, told_by=f"{origin_of(self._source.endpoint)} sends a file elsewhere: it")
            if parts.scheme == "http" and self._source.endpoint.startswith("https://"):
                raise BadResponse(f"a file is redirected to {shown_url(there)!r}, without encryption", target=TARGET)
        return there

    def _wait_after_refusal(self, response: Opened, url: str) -> float:
        """Return the seconds to wait after a temporary refusal; raise for any other."""
        headers, status = response.headers, response.status
        if status in _BUSY:
            limit = rate_limit(headers)
            wait = limit.reset if limit is not None and limit.left == 0 else retry_after_seconds(headers)
            if wait is not None and wait > self._patience.rest_s:
                raise RateLimited(
                    f"asks to wait for {wait:.0f} s; the partial file is kept, and the next download resumes it",
                    target=TARGET,
                    status=status,
                    retry_after=wait,
                )
            return wait if wait is not None else random.uniform(0.5, 2.0)  # noqa: S311
        if origin_of(url) != origin_of(self._source.endpoint):
            raise ServerError(
                f"the Hub's storage refused a file (HTTP {status}); try again", target=TARGET, status=status
            )
        key = self._source.credential
        sent = key if key is not None and key.header_for(url) else None
        raise of_the_hub(refusal(HttpResponse(status, headers, b""), self._source.model, sent=sent))

    def _broke(self, error: "_Broken | _Stalled") -> GatewayError:
        if isinstance(error, _Stalled):
            patience = self._patience
            return AttemptTimedOut(
                f"sent less than {patience.min_bytes_per_s / 1000:.0f} kB per second of {self._source.model} for "
                f"{patience.silence_s:.3g} s, {patience.tries} times; the partial file is kept, and the next download "
                "resumes it",
                target=TARGET,
            )
        return ConnectFailed(
            f"the connection broke while {self._source.model} was downloaded ({error}); the partial file is kept, and the next "
            "download resumes it",
            target=TARGET,
        )

    def _verified_digest(self, file: ModelFile, part: Path) -> str:
        """Return the digest of a complete file. Raises BadResponse, and deletes it, if size or digest do not match."""
        size = part.stat().st_size
        digest = _digest(part, size, file.digest)
        wrong_size = file.size is not None and size != file.size
        if wrong_size or (_is_known_digest(file.digest) and digest != file.digest):
            part.unlink()
            what = f"{size} bytes long, not {file.size}" if wrong_size else "not what the Hub lists"
            raise BadResponse(f"{file.path} is {what}; it was deleted, try again", target=TARGET)
        return digest


class _Broken(Exception):
    """The connection failed or broke off."""


class _Stalled(Exception):
    """The body arrives too slowly."""


class Stopped(Exception):
    """The download was stopped."""


def check_size(file: ModelFile) -> None:
    """Raise BadResponse for a file that cannot be downloaded over HTTP."""
    if file.size is not None and file.size > MAX_FILE_BYTES:
        raise BadResponse(
            f"{file.path} is larger than {MAX_FILE_BYTES // 10**9} GB, and the Hub serves those over Xet only: use `hf download`",
            target=TARGET,
        )


def _is_known_digest(digest: str | None) -> bool:
    return digest is not None and len(digest) in (40, 64) and set(digest) <= set("0123456789abcdef")


def _digest(path: Path, size: int, like: str | None) -> str:
    """Return the digest in the form that the Hub lists: git's object id if it has that length, otherwise SHA-256."""
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
