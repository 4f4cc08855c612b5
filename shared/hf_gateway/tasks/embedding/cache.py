"""Caches of vectors, in which entries of different spaces or roles have different keys.

A key is a hash over the space, the role, everything else that changes a vector, and the text; the text itself is not stored. A
value is a vector as little-endian float32 with a checksum over key and vector, so that a damaged entry, or one under another's
key, is a miss and never a wrong vector. The guard's measurements are part of the key, too: a cache stores the fingerprint by
which its entries were accepted, and a chain with another fingerprint reads none of them.
"""

import dataclasses
import hashlib
import json
import logging
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.errors import BadResponse, ConfigError
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.spaces.fingerprint import Fingerprint, Store, compare
from hf_gateway.storage.vector_stores import SqliteCache as SqliteCache
from hf_gateway.storage.vector_stores import VectorCache as VectorCache
from hf_gateway.storage.vector_stores import open_cache
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.vectors import JoinedVectors, Vectors

if TYPE_CHECKING:
    from hf_gateway.tasks.embedding.candidate import EmbeddingCandidate

log = logger(__name__)

PAUSE_S = 10.0
"""How long a cache that failed is not used, so that a dead one does not slow every call."""
STORE_BATCH_TEXTS = 512
"""Texts that are embedded before they are stored: a job that fails loses no more than these."""
_CHECKSUM_BYTES = 8
_FORM = b"hf-gateway vector 1"


def vector_key(space: str, role: str, text: str, variant: str = "") -> str:
    """Return the key of a text's vector: 64 hexadecimal digits, different for different arguments.

    Args:
        space: id of the vector space.
        role: "query" or "document".
        text: what is embedded, without a prompt.
        variant: everything else that changes the vector.
    """
    return Keys(space, role, variant)(text)


class Keys:
    """Makes the keys of one space and role; the common part is hashed once."""

    def __init__(self, space: str, role: str, variant: str = "") -> None:
        """Like `vector_key`, without the text."""
        self._begun = hashlib.sha256(_FORM)
        for part in (space, role, variant):
            raw = part.encode("utf-8", "surrogatepass")
            # Each part is preceded by its length, so that none can run into the next; the text is the rest.
            self._begun.update(len(raw).to_bytes(8, "big") + raw)

    def __call__(self, text: str) -> str:
        """Return the key of a text."""
        whole = self._begun.copy()
        whole.update(text.encode("utf-8", "surrogatepass"))
        return whole.hexdigest()


def with_checksum(name: str, data: bytes) -> bytes:
    """Return a value as it is stored: with a checksum at its end.

    Args:
        name: its key.
        data: the value.
    """
    return data + hashlib.blake2b(name.encode() + data, digest_size=_CHECKSUM_BYTES).digest()


def without_checksum(name: str, value: Any) -> bytes | None:
    """Return a stored value without its checksum; None if the checksum is wrong.

    Args:
        name: its key.
        value: what the cache returned.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        return None
    data = bytes(value)[:-_CHECKSUM_BYTES]
    return data if with_checksum(name, data) == bytes(value) else None


@dataclass(frozen=True)
class CacheCounts:
    """Counts of a chain's cache."""

    hits: int = 0
    """Texts that were found."""
    misses: int = 0
    """Texts that were not found."""
    spoilt: int = 0
    """Damaged entries."""
    failures: int = 0
    """Calls of the cache that failed."""


@dataclass(frozen=True)
class _Generation:
    """The entries that were accepted by one fingerprint."""

    space: str
    stamp: tuple[int, int, int]
    reference: Fingerprint
    name: str | None
    """"" while the cache could not be read, None if this chain may use no entries any more."""


class CachedSpace:
    """A cache as one chain sees it: only vectors of the chain's space, by its options and its guard's measurements.

    It raises no exceptions: a failing cache is logged once, and counts as a miss.
    """

    def __init__(
        self,
        given: Any,
        options: EmbedOptions,
        candidates: "Sequence[EmbeddingCandidate]",
        space: Callable[[], VectorSpace | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """space: returns the space of all further vectors, None while that is open. Raises ConfigError."""
        cache = open_cache(given)
        assert cache is not None
        self.cache = cache
        self._owned = isinstance(given, bool | str | Path)
        self._options = options
        self._candidates = candidates
        self._space = space
        self._now = now
        self._fingerprints = Store()
        self._lock = fork_lock()
        self._counts = CacheCounts()
        self._generation: _Generation | None = None
        self._rests_until = float("-inf")

    @property
    def counts(self) -> CacheCounts:
        """The counts so far."""
        return self._counts

    def read(self, request: EmbedRequest) -> dict[str, bytes]:
        """Return the cached vectors: text → little-endian float32, all of one dimension."""
        texts = list(dict.fromkeys(request.texts))
        found: dict[str, bytes] = {}
        spoilt = 0
        space = self._space()
        keys = self._keys(space, request, reading=True) if space is not None else None
        if space is not None and keys is not None:
            names = [keys(text) for text in texts]
            for text, name, value in zip(texts, names, self._get(names), strict=True):
                data = without_checksum(name, value)
                if data is not None and data and len(data) % 4 == 0:
                    found[text] = data
                elif value is not None:
                    spoilt += 1
            spoilt += self._drop_other_dimensions(found, space)
        self._count(hits=len(found), misses=len(texts) - len(found), spoilt=spoilt)
        return found

    def write(self, request: EmbedRequest, rows: Iterable[tuple[str, bytes]]) -> None:
        """Store vectors that this chain's targets returned just now.

        Args:
            request: the texts' role and settings.
            rows: (text, vector) pairs.
        """
        space = self._space()
        keys = self._keys(space, request) if space is not None else None
        if keys is not None:
            items = [(name := keys(text), with_checksum(name, data)) for text, data in rows]
            self._set(items)

    def close(self) -> None:
        """Close a cache that was opened here; one that was passed in stays open."""
        if self._owned:
            self.cache.close()

    def _keys(self, space: VectorSpace, request: EmbedRequest, reading: bool = False) -> Keys | None:
        generation = (
            self._resolve_generation(space, reading)
            if self._options.check_space
            else unchecked(self._candidates, space)
        )
        if generation is None:
            return None
        # The dimension that a vector was truncated from is in no space: hash:64 truncated to 32 is not hash:32.
        whole = next(
            (known for candidate in self._candidates if (known := candidate.ability.model_space().dimension)), None
        )
        cut = f"{whole}->{self._options.dimensions}" if self._options.dimensions is not None else ""
        return Keys(space.id, request.role, f"{generation} truncate={request.truncate} {cut}")

    def _resolve_generation(self, space: VectorSpace, reading: bool) -> str | None:
        """Return the name of the entries that the chain's current fingerprint accepted; None if there are no such entries."""
        try:
            about = self._fingerprints.path(space).stat()
        except OSError:
            return None
        stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
        known = self._generation
        if known is None or known.space != space.id or known.stamp != stamp:
            reference = self._fingerprints.load(space)
            if reference is None or (self._options.truncate and not reference.says_where_texts_are_cut):
                return None
            name: str | None = ""
            if known is not None and known.space == space.id:
                # Replaced by the model's own files: the reference of this chain's targets may now be another space.
                name = known.name if self._check_reference(known.reference, reference) else None
            known = _Generation(space.id, stamp, reference, name)
        if known.name == "":
            known = dataclasses.replace(known, name=self._name(space, known.reference))
        self._generation = known
        if reading and not is_reference_usable(self._candidates, known.reference):
            return None
        return known.name or None

    def _name(self, space: VectorSpace, reference: Fingerprint) -> str:
        """Name entries after the fingerprint in the cache, or after the chain's own if that differs."""
        place = Keys(space.id, "fingerprint", f"truncate={self._options.truncate}")("")
        (value,) = self._get([place])
        if self._is_paused():
            return ""
        kept = _read_fingerprint(without_checksum(place, value))
        if kept is None:
            self._set([(place, with_checksum(place, json.dumps(reference.to_dict()).encode()))])
            kept = reference
        return _digest(kept if self._check_reference(kept, reference) else reference)

    def _check_reference(self, one: Fingerprint, other: Fingerprint) -> bool:
        return compare(one.rows, other.rows, cut=self._options.truncate).same

    def _drop_other_dimensions(self, found: dict[str, bytes], space: VectorSpace) -> int:
        """Remove vectors of another dimension than the space has, or the chain returned before; returns how many."""
        seen = self._candidates[0].seen
        dimensions = {len(data) // 4 for data in found.values()}
        expected = space.dimension or seen.value
        if expected is None and len(dimensions) == 1:
            expected = seen.value = next(iter(dimensions))
        others = [text for text, data in found.items() if len(data) // 4 != expected]
        for text in others:
            del found[text]
        return len(others)

    def _get(self, keys: Sequence[str]) -> Sequence[Any]:
        if not self._is_paused():
            try:
                values = self.cache.get_many(keys)
                if len(values) == len(keys):
                    return values
                raise ValueError(f"{len(values)} values for {len(keys)} keys")
            except Exception as error:  # noqa: BLE001 - a user's store may raise any exception
                self._note_failure(error)
        return [None] * len(keys)

    def _set(self, items: Sequence[tuple[str, bytes]]) -> None:
        if not self._is_paused():
            try:
                self.cache.set_many(items)
            except Exception as error:  # noqa: BLE001 - a user's store may raise any exception
                self._note_failure(error)

    def _is_paused(self) -> bool:
        return self._now() < self._rests_until

    def _note_failure(self, error: Exception) -> None:
        self._rests_until = self._now() + PAUSE_S
        level = logging.DEBUG if self._counts.failures else logging.WARNING
        self._count(failures=1)
        log.log(
            level,
            "the cache %s failed, so vectors are computed without it: %s: %s",
            _name_of(self.cache),
            type(error).__name__,
            error,
        )

    def _count(self, **more: int) -> None:
        with self._lock:
            added = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = dataclasses.replace(self._counts, **added)


def unchecked(candidates: "Sequence[EmbeddingCandidate]", space: VectorSpace) -> str:
    """Return a name for entries of servers that are not checked: it includes the servers, since two may use one model's name.

    Args:
        candidates: the chain's targets.
        space: the space that they declare.
    """
    servers = sorted(
        candidate.label
        for candidate in candidates
        if not candidate.authoritative and not space.differences(candidate.space)
    )
    return f"unchecked {json.dumps(servers)}" if servers else "unchecked"


def is_reference_usable(candidates: "Sequence[EmbeddingCandidate]", reference: Fingerprint) -> bool:
    """Return whether a server's fingerprint is valid for a chain: model files in it may be about to replace it.

    Args:
        candidates: the chain's targets.
        reference: the stored fingerprint.
    """
    return (
        reference.authority == "files"
        or any(
            candidate.guard is not None and candidate.guard.space_check(candidate).state == "same"
            for candidate in candidates
        )
        or not any(candidate.authoritative for candidate in candidates)
    )


class CacheNamespaces:
    """Namespaces for the caches of frameworks, which store vectors without asking a chain: the space and its fingerprint."""

    def __init__(self, options: EmbedOptions, candidates: "Sequence[EmbeddingCandidate]") -> None:
        """Use a chain's settings and candidates."""
        self._options = options
        self._candidates = candidates
        self._fingerprints = Store()
        self._known: tuple[Any, Fingerprint, str] | None = None

    def of(self, space: VectorSpace) -> str | None:
        """Return the namespace of vectors of a space; None until the space was measured on this machine."""
        if not self._options.check_space:
            return f"{space.id} {unchecked(self._candidates, space)}"
        try:
            about = self._fingerprints.path(space).stat()
        except OSError:
            return None
        stamp = space.id, about.st_mtime_ns, about.st_size, about.st_ino
        if self._known is None or self._known[0] != stamp:
            reference = self._fingerprints.load(space)
            if reference is None or (self._options.truncate and not reference.says_where_texts_are_cut):
                return None
            self._known = stamp, reference, f"{space.id} {_digest(reference)}"
        return self._known[2] if is_reference_usable(self._candidates, self._known[1]) else None


class CacheLookup:
    """One embedding call: the cached vectors, the texts that are missing, each once, and the combination of both."""

    def __init__(self, request: EmbedRequest, cached: CachedSpace | None = None) -> None:
        """Look up all texts; without a cache all are missing."""
        self._request = request
        self._cached = cached
        self._rows = cached.read(request) if cached is not None and request.texts else {}
        self.found = len(self._rows)
        texts = request.texts
        unique = texts if len(texts) < 2 else dict.fromkeys(texts)
        self._whole = cached is None and len(unique) == len(texts)
        self._left = texts if self._whole else [text for text in unique if text not in self._rows]
        self._joined = JoinedVectors(lists=request.lists)
        self.looked_up = 0 if cached is None else len(unique)

    @staticmethod
    def store_batch_texts() -> int:
        """Return how many texts are embedded before they are stored."""
        return STORE_BATCH_TEXTS

    def missing(self) -> Sequence[str]:
        """Return the texts to embed, in the order of the call."""
        return self._left

    def store(self, texts: Sequence[str], answers: Sequence[EmbedAnswer]) -> None:
        """Store the vectors of missing texts.

        Args:
            texts: the texts.
            answers: their vectors.
        """
        if not self._whole:
            rows = list(zip(texts, (row for answer in answers for row in _rows(answer.vectors)), strict=True))
            self._rows.update(rows)
            if self._cached is not None:
                self._cached.write(self._request, rows)

    def add(self, answer: EmbedAnswer) -> None:
        """Add the answer for the next missing texts, in the order of the call."""
        if self._whole:
            self._joined.add(answer.vectors)

    def vectors(self) -> Vectors:
        """Return the vectors of all texts in order. Raises BadResponse if they have different dimensions."""
        if self._whole:
            return self._joined.vectors()
        sizes = {len(row) for row in self._rows.values()}
        if len(sizes) > 1:
            raise BadResponse(
                f"vectors of {' and '.join(str(size // 4) for size in sorted(sizes))} numbers in one call, new ones and "
                "ones from the cache; has the model changed?"
            )
        return Vectors.from_bytes(
            b"".join(self._rows[text] for text in self._request.texts), max(sizes, default=0) // 4
        )


def _rows(vectors: Vectors) -> Iterator[bytes]:
    for start in range(0, len(vectors.data), vectors.dim or 1):
        row: array[float] = vectors.data[start : start + vectors.dim]
        if sys.byteorder == "big":
            row.byteswap()
        yield row.tobytes()


def _read_fingerprint(data: bytes | None) -> Fingerprint | None:
    if data is None:
        return None
    try:
        return Fingerprint.from_dict(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
        return None


def _digest(fingerprint: Fingerprint) -> str:
    return hashlib.sha256(json.dumps(fingerprint.to_dict()["rows"], sort_keys=True).encode()).hexdigest()


def _name_of(cache: VectorCache) -> str:
    kept = getattr(cache, "store", cache)
    return repr(cache) if isinstance(cache, SqliteCache) else type(kept).__name__
