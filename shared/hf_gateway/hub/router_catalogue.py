"""The router's catalogue of models: read once a day, cached on disk, and never required for a call."""

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
"""Seconds for which a catalogue is used."""
FETCH_TIMEOUT_S = 3.0
"""Seconds for the whole list; after that the catalogue counts as unknown."""
RETRY_S = 600.0
"""Seconds after a failure until the router is called again."""


class RouterCatalogue:
    """The catalogue of one router. Safe for threads and for several processes."""

    def __init__(self, router: str, folder: Path) -> None:
        """Set the router and the cache's path; nothing is read yet."""
        self._router = router
        self._path = folder / f"router-{hashlib.sha256(router.encode()).hexdigest()[:16]}.json"
        self._lock = fork_lock()
        self._entries: dict[str, CatalogueEntry] | None = None
        self._looked = 0.0
        self._failed_at: float | None = None

    def cached_entry(self, model: str) -> CatalogueEntry | None:
        """Return a model's entry in the cached catalogue, without a network; None if it is missing or older than a day."""
        with self._lock:
            if self._entries is None or time.time() - self._looked > LIFETIME_S:
                self._entries = self._read()
            return (self._entries or {}).get(model.partition(":")[0])

    def find_entry(self, model: str) -> CatalogueEntry | None:
        """Return a model's entry, calling the router if the cache is older than a day; None if it does not list the model.

        Blocks for at most FETCH_TIMEOUT_S seconds. The request needs no key, so none is sent.
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
                log.info("the capabilities of models are unknown: %s", error)
            finally:
                transport.close()
        return self.cached_entry(model)

    def entries(self) -> tuple[list[CatalogueEntry], float] | None:
        """Return the cached catalogue and its time in seconds since 1970; None if it is missing or older than a day."""
        with self._lock:
            if self._entries is None or time.time() - self._looked > LIFETIME_S:
                self._entries = self._read()
            return None if self._entries is None else (list(self._entries.values()), self._looked)

    def refresh(self, timeout: float = 30.0) -> list[CatalogueEntry]:
        """Read the catalogue from the router now and cache it. Raises GatewayError, and then the cache is unchanged."""
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
            log.info("the router's catalogue cannot be cached: %s", error)

    def _read(self) -> dict[str, CatalogueEntry] | None:
        try:
            self._looked = self._path.stat().st_mtime
            if time.time() - self._looked > LIFETIME_S:
                return None
            body = self._path.read_bytes()
            return {entry.id: entry for entry in decode_models(HttpResponse(200, {}, body), target="the router")}
        except (OSError, GatewayError, json.JSONDecodeError):
            return None  # missing or damaged, which is one miss


@cache
def _catalogue_of(router: str, folder: Path, _pid: int) -> RouterCatalogue:
    return RouterCatalogue(router, folder)


def catalogue_of(router: str) -> RouterCatalogue:
    """Return the catalogue of a router, one instance per process."""
    return _catalogue_of(router, home(), os.getpid())
