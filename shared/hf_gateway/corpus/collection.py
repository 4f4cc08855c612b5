"""The collection that a job writes into: made before its workers begin, cleared of what is gone and counted at its end."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_gateway.corpus.documents import read_documents
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.parts import HASH_BYTES, SUCCESS, PartRows, part_file, part_table
from hf_gateway.corpus.plan import Plan
from hf_gateway.corpus.stores.base import Store, StoreColumns, StorePlace, open_store, prepare_collection
from hf_gateway.errors import GatewayError, visible
from hf_gateway.retrieval.files import arrow, numpy
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

_BATCH_ROWS = 1000


class Collection:
    """The collection of one job."""

    def __init__(self, place: StorePlace, job: JobSettings) -> None:
        """Nothing is opened yet.

        Args:
            place: of the collection.
            job: the columns.
        """
        self._place, self._job = place, job
        self._columns = StoreColumns(job.id, job.text)

    def prepare(self, gateway: EmbeddingGateway, plan: Plan, *, is_new: bool) -> None:
        """Make it, or check that it may take this job's rows.

        Args:
            gateway: of the job's space.
            plan: whose first row says which types the columns have.
            is_new: whether the job begins.

        Raises:
            SpaceMismatch: it is of another space.
            ConfigError: it has rows that are not this job's, or the store's package is not installed.
            GatewayError: the store cannot be used.
        """
        if not plan.shards:
            return
        pa, _ = arrow()
        shard = plan.shards[0]
        sample = read_documents(plan.files[shard.file], replace(shard, rows=1), self._job)
        id_type = sample.id_type if self._job.split is None else pa.string()
        dimension = gateway.space.dimension or gateway.embed(["a text"]).vectors.dim
        empty = PartRows([], id_type, numpy().empty((0, dimension), "f4"), [], sample.kept.slice(0, 0))
        with open_store(self._place, self._columns) as store:
            rows = part_table(self._job, empty, gateway.space)
            prepare_collection(store, self._place, rows, gateway.space, is_new=is_new)

    def finish(self, folder: Path, plan: Plan, earlier: Path | None) -> None:
        """Remove the rows that are gone, and compare the number of rows with that of the parts.

        Args:
            folder: with the ids of all parts.
            plan: the parts.
            earlier: the folder of the job whose collection was brought up to date.

        Raises:
            GatewayError: the store has another number of rows, or cannot be used.
        """
        if not plan.shards and earlier is None:
            return
        names = [part_file(name, "store") for name in plan.part_names()]
        keys = [_keys(ids) for ids in _ids(folder, names, self._job.id)]
        there = numpy().unique(numpy().concatenate([*keys, _keys([])]))
        with open_store(self._place, self._columns) as store:
            if earlier is not None:
                self._remove(store, earlier, there)
            count = store.count()
        rows, name = sum(map(len, keys)), visible(self._place.public_name)
        if len(there) != rows:
            raise GatewayError(
                f"{rows - len(there):,} of {rows:,} rows have an id that another one has, and in {name} "
                "an id has one row: name a column of ids without repetitions (--id), and write into a new collection"
            )
        if count != rows:
            raise GatewayError(
                f"{name} has {count:,} rows, and not the {rows:,} that were written: something else writes "
                f"into it or removes from it. The job is not marked as done; {folder} has the ids of each part"
            )

    def _remove(self, store: Store, earlier: Path, there: Any) -> None:
        np = numpy()
        listed: list[str] = json.loads((earlier / SUCCESS).read_bytes())["parts"]
        for ids in _ids(earlier, listed, self._job.id):
            gone = np.flatnonzero(~np.isin(_keys(ids), there, assume_unique=False))
            for start in range(0, len(gone), _BATCH_ROWS):
                store.delete([ids[place] for place in gone[start : start + _BATCH_ROWS].tolist()])


def _ids(folder: Path, names: Sequence[str], column: str) -> Iterator[list[Any]]:
    """Yield the ids of each part."""
    _, pq = arrow()
    for name in names:
        yield pq.read_table(folder / name, columns=[column])[column].to_pylist()


def _keys(ids: Sequence[Any]) -> Any:
    """Return 8 bytes for each id: a billion of them fit where the ids would not."""
    digests = b"".join(hashlib.blake2b(str(each).encode(), digest_size=HASH_BYTES // 2).digest() for each in ids)
    return numpy().frombuffer(digests, "u8")
