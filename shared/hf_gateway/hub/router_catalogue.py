"""What the router's catalogue says of models: read once a day, kept on disk, and never needed for a call."""

import contextlib
import hashlib
import json
import os
import time
from functools import cache
from pathlib import Path

from hf_gateway.errors import GatewayError
from hf_gateway.http.transport import HttpTransport
from hf_gateway.runtime.effects import Send
from hf_gateway.storage.files import home, write_atomically
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.logs import logger
from hf_gateway.wire.hf_router import CatalogueEntry, decode_models, encode_models

log = logger(__name__)

LIFETIME_S = 24 * 3600.0
FETCH_TIMEOUT_S = 3.0
"""Seconds for the whole list; where it takes longer, nothing is known, and nothing breaks."""
RETRY_S = 600.0
"""Seconds until a router that gave no list is asked again."""


class RouterCatalogue:
    """The catalogue of one router. Safe for threads and for several processes."""

    def __init__(self, router: str, folder: Path) -> None:
        """Read nothing yet."""
        self._router = router
        self._path = folder / f"router-{hashlib.sha256(router.encode()).hexdigest()[:16]}.json"
        self._lock = fork_lock()
        self._entries: dict[str, CatalogueEntry] | None = None
        self._looked = 0.0
        self._failed_at: float | None = None

    def cached_entry(self, model: str) -> CatalogueEntry | None:
        """Return what was read of a model on this machine, without any network; None where it was not, or not today."""
        with self._lock:
            if self._entries is None or time.time() - self._looked > LIFETIME_S:
                self._entries = self._read()
            return (self._entries or {}).get(model.partition(":")[0])

    def find_entry(self, model: str) -> CatalogueEntry | None:
        """Return what the router says of a model, asking it where it was not asked today; None where it says nothing.

        Blocks for PATIENCE seconds at most. Nobody needs a key for this, so none is sent.
        """
        found = self.cached_entry(model)
        with self._lock:
            recently = self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_S
            if found is not None or self._entries is not None or recently:
                return found
            transport = HttpTransport()
            try:
                wish = Send(encode_models(self._router))
                self._store(
                    transport.send(wish, timeout=FETCH_TIMEOUT_S, connect_timeout=FETCH_TIMEOUT_S, target="the router")
                )
            except (GatewayError, OSError) as error:
                self._failed_at = time.monotonic()
                log.info("what models can do is not known: %s", error)
            finally:
                transport.close()
        return self.cached_entry(model)

    def entries(self) -> tuple[list[CatalogueEntry], float] | None:
        """Return all that was read on this machine today, and when, in seconds since the epoch; None where nothing was."""
        with self._lock:
            if self._entries is None or time.time() - self._looked > LIFETIME_S:
                self._entries = self._read()
            return None if self._entries is None else (list(self._entries.values()), self._looked)

    def refresh(self, timeout: float = 30.0) -> list[CatalogueEntry]:
        """Ask the router now, whatever is here, and keep what it says. Raises GatewayError; what is here stays then."""
        transport = HttpTransport()
        with contextlib.ExitStack() as closing:
            closing.callback(transport.close)
            wish = Send(encode_models(self._router))
            response = transport.send(wish, timeout=timeout, connect_timeout=5.0, target="the router")
        with self._lock:
            self._store(response)
            return list((self._entries or {}).values())

    def _store(self, response: HttpResponse) -> None:
        self._entries = {entry.id: entry for entry in decode_models(response, target="the router")}
        self._looked = time.time()
        try:
            write_atomically(self._path, response.body)
        except OSError as error:
            log.info("what models can do is known, and cannot be kept: %s", error)

    def _read(self) -> dict[str, CatalogueEntry] | None:
        try:
            self._looked = self._path.stat().st_mtime
            if time.time() - self._looked > LIFETIME_S:
                return None
            body = self._path.read_bytes()
            return {entry.id: entry for entry in decode_models(HttpResponse(200, {}, body), target="the router")}
        except (OSError, GatewayError, json.JSONDecodeError):
            return None  # not there, or spoilt, which is one miss


@cache
def _catalogue_of(router: str, folder: Path, _pid: int) -> RouterCatalogue:
    return RouterCatalogue(router, folder)


def catalogue_of(router: str) -> RouterCatalogue:
    """Return the catalogue of a router, the same one for everybody in this process."""
    return _catalogue_of(router, home(), os.getpid())
