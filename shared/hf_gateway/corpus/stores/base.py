"""What a job needs of a store, how a store is named, and how one is opened."""

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from hf_gateway.errors import ConfigError, GatewayError, SpaceMismatch, visible
from hf_gateway.ledger.place import shown_url as shown_database
from hf_gateway.storage.files import interprocess_lock
from hf_gateway.values.redaction import shown_url
from hf_gateway.values.vector_space import VectorSpace

SPACE = "hf_gateway.space"
"""The key of the vector space in a store's metadata, and in that of Parquet and Arrow files."""
GRAMMAR = (
    "qdrant:WHERE#COLLECTION, lancedb:WHERE#TABLE, chroma:WHERE#COLLECTION or postgresql://USER@HOST/DATABASE#TABLE"
)
_KINDS = {"qdrant": "qdrant", "lancedb": "lancedb", "chroma": "chroma", "postgresql": "pgvector"}
"""The extra of each kind, which is also the name of its module."""
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A collection of a store."""

    kind: str
    """One of "qdrant", "lancedb", "chroma", "postgresql"."""
    where: str
    """The folder or URL, as the store's own client takes it."""
    collection: str
    """The name of the collection or table."""

    @property
    def url(self) -> str:
        """Return what `parse_place` makes it of."""
        return f"{'' if self.where.startswith(self.kind + ':') else self.kind + ':'}{self.where}#{self.collection}"

    @property
    def public_name(self) -> str:
        """Return its name for messages and for the plan, without a password, which may stand in a query, too."""
        if not self.is_remote:
            return self.url
        where = shown_database(self.where) if self.kind == "postgresql" else shown_url(self.where)
        return StorePlace(self.kind, where, self.collection).url

    @property
    def is_remote(self) -> bool:
        """Whether it is named by a URL, and not by a folder of this machine."""
        return "://" in self.where


@dataclass(frozen=True, slots=True)
class StoreColumns:
    """Which columns of the rows have a meaning of their own."""

    id: str
    """The ids."""
    text: str
    """The texts, if they are copied."""


class Store(Protocol):
    """A collection; its rows are Arrow tables with the column of the ids, `vector`, `text_hash`, and the copied columns.

    Whatever its methods raise, the job ends with a GatewayError that names the store.
    """

    def create(self, rows: Any, space: VectorSpace) -> Mapping[str, Any] | None:
        """Make the collection, unless it is there.

        Args:
            rows: a table like those that will be written.
            space: is recorded with a new collection.

        Returns:
            The space that is recorded, as a dictionary; None if the collection has no record.
        """

    def upsert(self, rows: Any) -> None:
        """Write rows, each in the place of the one that has its id; they are durable when this returns.

        Args:
            rows: a table without repeated ids.
        """

    def delete(self, ids: Sequence[Any]) -> None:
        """Remove the rows of these ids, if they are there."""

    def count(self) -> int:
        """Return the exact number of rows."""

    def close(self) -> None:
        """Close connections."""


def parse_place(out: str) -> StorePlace | None:
    """Return the collection that OUT names; None if it is a folder.

    Args:
        out: as the user gave it.

    Raises:
        ConfigError: it begins with a store's name and names no collection.
    """
    kind, colon, rest = out.partition(":")
    if not colon or kind not in _KINDS:
        return None
    where, _, collection = rest.rpartition("#")
    if not where or not _COLLECTION.fullmatch(collection):
        raise ConfigError(
            f"{visible(out)} names no collection: a store is {GRAMMAR}, and the name after '#' has letters, digits, '_' and '-'"
        )
    if kind == "postgresql":
        where = f"{kind}:{where}"
    elif "://" not in where:
        where = str(Path(where).resolve())
    return StorePlace(kind, where, collection)


def hold_folder(folder: str, resources: contextlib.ExitStack) -> None:
    """Make a store's folder, and wait until no other process has it open.

    Args:
        folder: of a store that one process at a time may open.
        resources: give it up.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    resources.enter_context(interprocess_lock(Path(folder) / ".hf-gateway.lock"))


@contextlib.contextmanager
def open_store(place: StorePlace, columns: StoreColumns) -> Iterator[Store]:
    """Yield a store while the block runs.

    Args:
        place: of the collection.
        columns: of the rows.

    Raises:
        ConfigError: the store's package is not installed.
        GatewayError: whatever the store raises inside the block.
    """
    extra = _KINDS[place.kind]
    try:
        module = importlib.import_module(f"hf_gateway.corpus.stores.{extra}")
    except ImportError as error:
        raise ConfigError(
            f"writing into {place.kind}: needs another package ({error}): pip install 'hf-gateway[corpus,{extra}]'"
        ) from None
    try:
        store: Store = module.open_collection(place, columns)
        with contextlib.closing(store):
            yield store
    except (GatewayError, ImportError):
        raise
    except Exception as error:
        message = f"{visible(place.public_name)}: {type(error).__name__}: {error}"
        url = urlsplit(place.where)
        for secret in [url.password, *parse_qs(url.query).get("password", [])] if place.is_remote else []:
            message = message.replace(secret, "…") if secret else message
        raise GatewayError(message) from error


def prepare_collection(store: Store, place: StorePlace, rows: Any, space: VectorSpace, *, is_new: bool) -> None:
    """Make the collection of a job, or check that the one that is there may take its rows.

    Args:
        store: open.
        place: of the collection.
        rows: a table like those that will be written.
        space: of the job.
        is_new: whether the job begins; only one that goes on may find rows.

    Raises:
        SpaceMismatch: the collection is of another space.
        ConfigError: it has rows that are not this job's.
    """
    recorded = store.create(rows, space)
    name = visible(place.public_name)
    if recorded is not None and (differences := VectorSpace.from_dict(recorded).differences(space)):
        lines = "".join(f"\n  - {difference}" for difference in differences)
        raise SpaceMismatch(
            f"the collection {name} was made in another vector space than the job has. What is, and what would be:{lines}\n"
            "  Ways out: use the model that the collection was made with, or write into a new collection"
        )
    if is_new and (count := store.count()):
        raise ConfigError(
            f"{name} has {count:,} rows already, which this job did not write: name the folder of the job that wrote them "
            "(--job-folder), bring them up to date with --since, or write into a new collection"
        )


def json_value(value: Any) -> Any:
    """Return a value as JSON has it; what JSON does not have becomes a string."""
    return value if isinstance(value, str | int | float | bool | None) else json.loads(json.dumps(value, default=str))
