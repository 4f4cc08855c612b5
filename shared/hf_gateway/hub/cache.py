"""Cache of model metadata on disk, shared by processes.

One SQLite file. A connection lives for one call, so threads and forks share nothing. The columns that are searched
are in a table of their own, apart from the bodies, so that a search over ten thousand models reads no bodies.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.hub.names import endpoint as checked_endpoint
from hf_gateway.storage.files import home
from hf_gateway.storage.notices import notice_once
from hf_gateway.storage.sqlite import gate
from hf_gateway.values.hub_model import LIFETIME_HOURS, ModelFile, ModelMetadata
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    import sqlite3

log = logger(__name__)

FILE_NAME = "models-2.sqlite"
"""The number is the version of the tables: a package with other tables makes a file of its own."""
BUSY_TIMEOUT_S = 10.0
"""Seconds for which a call waits for other processes' writes."""
_MAX_INTEGER = 2**63 - 1  # the largest integer that SQLite stores
_ORDERS = {
    "downloads": "downloads DESC",
    "likes": "likes DESC",
    "trending": "trending DESC, downloads DESC",
    "updated": "modified DESC",
}
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS models (
    key TEXT PRIMARY KEY, hub TEXT NOT NULL, cached_at REAL NOT NULL, complete INTEGER NOT NULL, words TEXT NOT NULL,
    tags TEXT NOT NULL, downloads INTEGER NOT NULL, likes INTEGER NOT NULL, trending REAL, modified TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bodies (key TEXT PRIMARY KEY, digest BLOB NOT NULL, body TEXT NOT NULL, validators TEXT);
CREATE TABLE IF NOT EXISTS trees (key TEXT PRIMARY KEY, digest BLOB NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS renames (key TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
COMMIT;
"""
_SPOILT = re.compile("no such (table|column)|has no column named|malformed|unsupported file format|Could not decode")
_HOW_MANY = (
    "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('models', 'bodies', 'trees', 'renames')"
)


@dataclass(frozen=True)
class CachedModel:
    """A cached model."""

    metadata: ModelMetadata
    """The metadata, whatever their age."""
    validators: Mapping[str, str]
    """ETag of the last answer, by question."""


class ModelCache:
    """Cache of model metadata by model id. Unreadable entries are misses, and failed writes are ignored.

    Only `remove` and `clear` raise when they fail (OSError), since a caller relies on the deletion.

    Args:
        cache_dir: folder of the file; created at the first write, readable for its owner only.
        endpoint: base URL of the Hub that the models belong to; models of other Hubs are kept apart in the same file.
        now: returns the time in seconds since 1970.
    """

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        *,
        endpoint: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Resolve the path; nothing is opened yet."""
        self.cache_dir = Path(cache_dir).expanduser().absolute() if cache_dir is not None else home() / "hub"
        self.path = self.cache_dir / FILE_NAME
        self.hub = checked_endpoint(endpoint)
        self._now = now

    def get(self, model_id: str, ttl_hours: float | None = LIFETIME_HOURS) -> ModelMetadata | None:
        """Return the cached metadata of a model.

        Args:
            model_id: Hub id.
            ttl_hours: maximum age in hours; None for any age.

        Returns:
            The metadata; None if the model is not cached or its entry is older.
        """
        entry = self.entry(model_id)
        if entry is None or (ttl_hours is not None and entry.metadata.is_expired(ttl_hours, self.now())):
            return None
        return entry.metadata

    def entry(self, model_id: str) -> CachedModel | None:
        """Return the cached entry of a model, of any age, with the ETags to revalidate it."""

        def read(db: "sqlite3.Connection") -> Any:
            key = self._key(self._current_name(db, model_id) or model_id)
            return db.execute("SELECT key, digest, body, validators FROM bodies WHERE key = ?", (key,)).fetchone()

        found = self._read_or(read, None)
        return self._entry(*found) if found is not None else None

    def set(
        self, metadata: ModelMetadata, validators: Mapping[str, str] | None = None, *, asked_for: str | None = None
    ) -> None:
        """Store the metadata of a model, replacing what was stored before.

        Args:
            metadata: the metadata.
            validators: ETag of the answer, by question.
            asked_for: an old name of the model, which the Hub redirected to this one.
        """
        rows = [self._rows(metadata, validators)]

        def write(db: "sqlite3.Connection") -> None:
            _put(db, rows)
            self._rename(db, asked_for or metadata.id, metadata.id)

        self._write(write)

    def current_name(self, model_id: str) -> str | None:
        """Return the current name of a renamed model; None if no rename is known."""
        found: str | None = self._read_or(lambda db: self._current_name(db, model_id), None)
        return found

    def set_current_name(self, model_id: str, name: str) -> None:
        """Store that the Hub redirected one name to another; nothing if they are equal.

        Args:
            model_id: the name that was requested.
            name: the name that the Hub uses now.
        """
        if model_id != name:
            self._write(lambda db: self._rename(db, model_id, name))

    def _current_name(self, db: "sqlite3.Connection", model_id: str) -> str | None:
        row = db.execute("SELECT name FROM renames WHERE key = ?", (self._key(model_id),)).fetchone()
        return row[0] if row and isinstance(row[0], str) else None

    def _rename(self, db: "sqlite3.Connection", model_id: str, name: str) -> None:
        if model_id != name:
            db.execute("INSERT OR REPLACE INTO renames VALUES (?, ?)", (self._key(model_id), _printable(name)))

    def set_many(self, found: Sequence[ModelMetadata]) -> None:
        """Store the models of a list in one transaction.

        Complete entries that are still fresh are kept, since a list has fewer fields.
        """
        horizon = (self.now() - timedelta(hours=LIFETIME_HOURS)).timestamp()
        rows = [self._rows(metadata, None) for metadata in found]

        def write(db: "sqlite3.Connection") -> None:
            kept = {key for (key,) in db.execute("SELECT key FROM models WHERE complete AND cached_at > ?", (horizon,))}
            _put(db, [each for each in rows if each[0]["complete"] or each[0]["key"] not in kept])

        self._write(write)

    def remove(self, model_id: str) -> bool:
        """Remove a model; return whether it was cached. Raises OSError if the file cannot be written to."""

        def write(db: "sqlite3.Connection") -> bool:
            name = self._current_name(db, model_id) or model_id
            keys = (self._key(model_id), self._key(name))
            db.execute("DELETE FROM renames WHERE key IN (?, ?) OR lower(name) = lower(?)", (*keys, _printable(name)))
            db.execute("DELETE FROM models WHERE key IN (?, ?)", keys)
            return db.execute("DELETE FROM bodies WHERE key IN (?, ?)", keys).rowcount > 0

        return bool(self.path.exists() and self._write_or_raise(write))

    def clear(self) -> int:
        """Remove all models, of every Hub; return how many there were. Raises OSError if the file cannot be written to."""

        def write(db: "sqlite3.Connection") -> int:
            for table in ("renames", "models", "trees"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - the names above
            return db.execute("DELETE FROM bodies").rowcount

        count = int(self._write_or_raise(write)) if self.path.exists() else 0
        self._read_or(lambda db: db.execute("VACUUM"), None)
        return count

    def get_all_cached(self) -> list[ModelMetadata]:
        """Return all cached models of this Hub, of any age, the newest first."""
        rows = self._read_or(
            lambda db: db.execute(
                "SELECT b.key, digest, body, validators FROM models m JOIN bodies b USING (key) WHERE hub = ? "
                "ORDER BY cached_at DESC, b.key",
                (self.hub,),
            ).fetchall(),
            [],
        )
        return [entry.metadata for row in rows if (entry := self._entry(*row)) is not None]

    def tree(self, model_id: str, commit: str) -> tuple[ModelFile, ...] | None:
        """Return the cached files of a commit, which never expire.

        Args:
            model_id: Hub id.
            commit: full hash of the commit.

        Returns:
            The files; None if the commit is not cached.
        """
        row = self._read_or(
            lambda db: db.execute(
                "SELECT digest, body FROM trees WHERE key = ?", (self._key(f"{model_id}\0{commit}"),)
            ).fetchone(),
            None,
        )
        try:
            return tuple(ModelFile(*each) for each in json.loads(row[1])) if row and row[0] == _digest(row[1]) else None
        except (TypeError, ValueError, RecursionError):
            return None

    def set_tree(self, model_id: str, commit: str, files: Sequence[ModelFile]) -> None:
        """Store the files of a commit.

        Args:
            model_id: Hub id.
            commit: full hash of the commit.
            files: all files of the commit.
        """
        body = json.dumps([(file.path, file.size, file.digest) for file in files], separators=(",", ":"))
        row = (self._key(f"{model_id}\0{commit}"), _digest(body), body)
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO trees VALUES (?, ?, ?)", row))

    def search(
        self, query: str = "", filter_tags: Sequence[str] = (), sort: str = "downloads", limit: int = 20
    ) -> list[ModelMetadata]:
        """Return cached models, of any age, that match all words and all tags.

        Args:
            query: words, each of which must be in the id or a tag.
            filter_tags: tags, all of which the model must have.
            sort: `downloads`, `likes`, `trending` or `updated`, in descending order.
            limit: maximum number of models.

        Raises:
            KeyError: unknown order.
        """
        wanted = _printable(query).lower().split()
        tags = [f"\n{_printable(tag).lower()}\n" for tag in filter_tags]
        where = " AND ".join(["hub = ?", *["instr(words, ?)"] * len(wanted), *["instr(tags, ?)"] * len(tags)])
        # Built of placeholders and a fixed order only; the id breaks ties, so that a page is the same each time.
        statement = f"SELECT key FROM models WHERE {where} ORDER BY {_ORDERS[sort]}, key LIMIT ?"  # noqa: S608

        def read(db: "sqlite3.Connection") -> list[Any]:
            keys = [key for (key,) in db.execute(statement, (self.hub, *wanted, *tags, min(limit, _MAX_INTEGER)))]
            one = "SELECT key, digest, body, validators FROM bodies WHERE key = ?"
            return [row for key in keys if (row := db.execute(one, (key,)).fetchone()) is not None]

        rows = self._read_or(read, [])
        return [entry.metadata for row in rows if (entry := self._entry(*row)) is not None]

    def size(self) -> int:
        """Return the size on disk, in bytes."""
        return sum(each.stat().st_size for each in self.cache_dir.glob(f"{FILE_NAME}*") if each.is_file())

    def __len__(self) -> int:
        """Return the number of cached models of this Hub."""
        count = self._read_or(
            lambda db: db.execute("SELECT count(*) FROM models WHERE hub = ?", (self.hub,)).fetchone(), (0,)
        )
        return int(count[0])

    def __bool__(self) -> bool:
        """Return True, also for an empty cache."""
        return True

    def __repr__(self) -> str:
        """Return the class name and the folder."""
        return f"ModelCache({str(self.cache_dir)!r})"

    def now(self) -> datetime:
        """Return the current time by the cache's clock."""
        return datetime.fromtimestamp(self._now(), UTC)

    def _key(self, model_id: str) -> str:
        return hashlib.sha256(f"{self.hub}\0{model_id.lower()}".encode("utf-8", "surrogatepass")).hexdigest()

    def _rows(
        self, metadata: ModelMetadata, validators: Mapping[str, str] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        key = self._key(metadata.id)
        body = json.dumps(metadata.to_dict(), separators=(",", ":"), default=str)
        tagged = [metadata.id, metadata.pipeline_tag or "", metadata.library_name or "", *metadata.tags]
        model = {
            "key": key,
            "hub": self.hub,
            "cached_at": metadata.cached_at.timestamp(),
            "complete": int(metadata.complete),
            "words": _printable(" ".join(tagged).lower()),
            "tags": _printable("\n" + "\n".join(each.lower() for each in tagged[1:] if each) + "\n"),
            "downloads": max(0, min(metadata.downloads, _MAX_INTEGER)),
            "likes": max(0, min(metadata.likes, _MAX_INTEGER)),
            "trending": metadata.trending,
            "modified": _sortable(metadata.modified),
        }
        return model, {
            "key": key,
            "digest": _digest(body),
            "body": body,
            "validators": json.dumps(dict(validators or {})),
        }

    def _entry(self, key: str, digest: Any, body: Any, validators: Any) -> CachedModel | None:
        """Decode an entry; a damaged one is deleted, so that it is a miss once."""
        try:
            if digest != _digest(body):
                raise ValueError("digest does not match")
            return CachedModel(ModelMetadata.from_dict(json.loads(body)), json.loads(validators))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            log.warning("a damaged entry of %s was deleted: %s", self.path, error)
        self._write(lambda db: _delete(db, key))
        return None

    def _read_or(self, work: "Callable[[sqlite3.Connection], Any]", nothing: Any) -> Any:
        """Run the query if the file exists and can be read; otherwise return `nothing`."""
        if not self.path.exists():
            return nothing
        found = self._run_or_none(work)
        return nothing if found is None else found

    def _write(self, work: "Callable[[sqlite3.Connection], Any]") -> Any:
        def whole(db: "sqlite3.Connection") -> Any:
            db.execute("BEGIN IMMEDIATE")
            done = work(db)
            db.execute("COMMIT")
            return done

        return self._run_or_none(whole)

    def _write_or_raise(self, work: "Callable[[sqlite3.Connection], Any]") -> Any:
        """Run the statements in a transaction. Raises OSError if that fails."""
        done = self._write(work)
        if done is None:
            raise OSError(f"{self.path} cannot be written to; nothing was removed")
        return done

    def _run_or_none(self, work: "Callable[[sqlite3.Connection], Any]") -> Any:
        """Call the function with a connection; return None if that fails."""
        import sqlite3

        for again in (True, False):
            try:
                with self._connection() as db:
                    return work(db)
            except OSError as error:
                notice_once(f"model metadata are not cached: {self.path}: {error}")
                return None
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if _is_temporary(error):
                    notice_once(f"model metadata are not cached: {self.path}: {error}")
                    return None
                log.warning("%s is damaged and will be recreated: %s", self.path, error)
                if not (again and self._replace_file()):
                    return None
        return None

    @contextlib.contextmanager
    def _connection(self) -> "Iterator[sqlite3.Connection]":
        import sqlite3

        new = not self.path.exists()
        if new:
            self.cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        with (
            gate.using(str(self.path)),
            contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection,
        ):
            # Data that a power cut loses is read from the Hub again; a file that it damages is recreated.
            connection.execute("PRAGMA synchronous=OFF")
            if new or connection.execute(_HOW_MANY).fetchone()[0] < _TABLES.count("CREATE TABLE"):
                connection.executescript(_TABLES)
            yield connection

    def _replace_file(self) -> bool:
        try:
            for each in self.cache_dir.glob(f"{FILE_NAME}*"):
                each.unlink(missing_ok=True)
        except OSError as error:
            notice_once(f"{self.path} is damaged and cannot be deleted: {error}")
            return False
        return True


def _is_temporary(error: "sqlite3.DatabaseError | UnicodeDecodeError") -> bool:
    """Return whether an error is about locks, permissions, the disk or a statement, rather than about the file's content.

    A missing table or column counts as damage. While sqlite3 reports a damaged schema, it may fail to decode its own message.
    """
    import sqlite3

    return isinstance(error, sqlite3.OperationalError) and not _SPOILT.search(str(error))


def _sortable(moment: datetime | None) -> str | None:
    try:
        return moment.astimezone(UTC).isoformat() if moment else None
    except OverflowError:  # in the first hours of the year 1, or the last of the year 9999
        return None


def _delete(db: "sqlite3.Connection", key: str) -> None:
    db.execute("DELETE FROM models WHERE key = ?", (key,))
    db.execute("DELETE FROM bodies WHERE key = ?", (key,))


def _put(db: "sqlite3.Connection", rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    if not rows:
        return
    for table, place in (("models", 0), ("bodies", 1)):
        names = ", ".join(rows[0][place])
        marks = ", ".join(f":{name}" for name in rows[0][place])
        db.executemany(
            f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})",  # noqa: S608 - the names of columns
            [each[place] for each in rows],
        )


def _digest(body: object) -> bytes | None:
    if not isinstance(body, str):
        return None
    return hashlib.blake2b(body.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _printable(text: str) -> str:
    """Return text that SQLite can store: lone surrogates replaced, NUL characters turned into spaces."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
