"""Embeds the documents of one shard, and finds those that cannot be embedded."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_gateway.corpus.dead_letters import DeadLetter, letter_of, reason, row_fault
from hf_gateway.corpus.documents import Documents, read_documents
from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.parts import PartRows, text_hash, write_part
from hf_gateway.corpus.passages import Splitting, cut
from hf_gateway.corpus.plan import Shard
from hf_gateway.corpus.reuse import EarlierVectors
from hf_gateway.errors import GatewayError, InvalidRequest, visible
from hf_gateway.retrieval.files import arrow, numpy
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

BATCH_TEXTS = 4096
"""Texts that are embedded together; their vectors are in memory until the part is written."""
LIMITED_BATCH_TEXTS = 256
"""The same for a job with limits, whose estimates of tokens are corrected after each batch."""
SEARCH_TEXTS = 64
"""Into how small batches one with a refused text is divided before it is halved."""
UNCHANGED = object()
"""Stands for the vector of a row that the store has already."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What came of a shard."""

    index: int
    """Its number."""
    rows: int
    """Documents that were embedded."""
    dead: int
    """Documents that were not."""
    vectors: int
    """Rows of the part."""
    tokens: int | None
    """Tokens that the targets counted; None if one did not."""
    cost_usd: str | None
    """What they cost; None if that is unknown."""
    seconds: float
    """How long it took."""
    reused: int = 0
    """Vectors that an earlier job had."""


@dataclass
class _Work:
    """The texts of a shard while they are embedded."""

    gateway: EmbeddingGateway
    documents: Documents
    job: JobSettings
    texts: list[str]
    owners: list[int]
    """The place of each text's document."""
    vectors: list[Any]
    """The row of numbers of each text; None until there is one."""
    settle: Callable[[int | None], None] | None = None
    """Takes the tokens of each batch."""
    letters: dict[int, DeadLetter] = field(default_factory=dict)
    """By the place of the document."""
    tokens: int | None = 0

    def refuse(self, owner: int, error: GatewayError) -> None:
        """Take a document out, or raise the error that ends the job."""
        document, file = self.documents.rows[owner], self.documents.file
        if self.job.on_bad_row == "fail":
            where = f"row {document.row} of {visible(file.path)} (id {visible(str(document.id))})"
            way_out = "correct the row, or let the job go on without such rows (--on-bad-row dead-letter)"
            raise error.restated(f"{where}: {reason(error)}; {way_out}", error.retry_after)
        self.letters[owner] = letter_of(document, file.name, error)
        if len(self.letters) > self.job.max_bad:
            raise InvalidRequest(
                f"more than {self.job.max_bad} rows cannot be embedded; of {visible(file.path)} the last is row "
                f"{document.row}: {self.letters[owner].error}: {self.letters[owner].message}. If the rows are at fault, "
                "allow more of them (--max-bad)"
            )

    def embed(self, places: Sequence[int]) -> None:
        """Embed texts; a batch with a text that is refused is divided until the text is found."""
        places = [place for place in places if self.vectors[place] is None and self.owners[place] not in self.letters]
        if not places:
            return
        try:
            result = self.gateway.embed([self.texts[place] for place in places])
        except GatewayError as error:
            fault = row_fault(error)
            if fault is None or (self.job.on_bad_row == "fail" and len(places) > 1 and _place(error) is None):
                raise
            self._divide(places, fault, _place(error))
            return
        used = result.usage.input_tokens
        if self.settle is not None:
            self.settle(used)
        self.tokens = None if self.tokens is None or (used is None and not result.shared) else self.tokens + (used or 0)
        for place, vector in zip(places, result.vectors.numpy(), strict=True):
            self.vectors[place] = vector

    def _divide(self, places: list[int], fault: GatewayError, named: int | None) -> None:
        if len(places) == 1 or (named is not None and named < len(places)):
            self.refuse(self.owners[places[named or 0]], fault)
        if len(places) == 1:
            return
        size = SEARCH_TEXTS if len(places) > SEARCH_TEXTS else -(-len(places) // 2)
        for start in range(0, len(places), size):
            self.embed(places[start : start + size])


def _place(error: GatewayError) -> int | None:
    return getattr(error, "place", None)


def embed_shard(
    gateway: EmbeddingGateway,
    file: InputFile,
    shard: Shard,
    job: JobSettings,
    settle: Callable[[int | None], None] | None = None,
    earlier: EarlierVectors | None = None,
) -> ShardResult:
    """Write the part of a shard under its fixed name, whole and on disk, or not at all.

    Args:
        gateway: embeds the texts; it is locked to the space of the folder.
        file: the shard's.
        shard: what to embed.
        job: how.
        settle: of a job with limits, takes the tokens that the targets counted for each batch.
        earlier: vectors of texts that need not be embedded again.

    Raises:
        GatewayError: a text cannot be embedded, and rows may not be left out.
        OSError: the part cannot be written.
    """
    begun = time.monotonic()
    documents = read_documents(file, shard, job)
    if job.split is None:
        owners, texts = list(range(len(documents.rows))), [document.text for document in documents.rows]
    else:
        owners, texts = cut(gateway, documents.rows, Splitting(**job.split))
    work = _Work(gateway, documents, job, texts, owners, [None] * len(texts), settle)
    for owner, document in enumerate(documents.rows):
        if document.fault is not None:
            work.refuse(owner, InvalidRequest(document.fault))
    rows = _rows(documents, job, texts, owners)
    if earlier is None:
        reused: dict[int, Any] = {}
    elif job.updates_store:
        reused = dict.fromkeys(earlier.places(rows.row_hashes), UNCHANGED)
    else:
        reused = earlier.find(rows.hashes)
    for place, vector in reused.items():
        work.vectors[place] = vector
    size = BATCH_TEXTS if settle is None else LIMITED_BATCH_TEXTS
    for start in range(0, len(texts), size):
        work.embed(range(start, min(start + size, len(texts))))
    part = _part_rows(work, rows)
    letters = [work.letters[owner] for owner in sorted(work.letters)]
    written = write_part(Path(job.out), shard.name, job, part, letters, gateway.space)
    return ShardResult(
        shard.index,
        len(documents.rows) - len(letters),
        len(letters),
        written,
        work.tokens,
        None,
        time.monotonic() - begun,
        len(reused),
    )


def _rows(documents: Documents, job: JobSettings, texts: Sequence[str], owners: Sequence[int]) -> PartRows:
    """Return all rows of a part but for their vectors.

    Args:
        documents: of the shard.
        job: the columns.
        texts: of each row.
        owners: the place of each text's document.
    """
    pa, _ = arrow()
    columns, ids, id_type = documents.kept, [documents.rows[owner].id for owner in owners], documents.id_type
    if job.split is not None:
        columns = columns.take(pa.array(owners, pa.int64()))
        ids, id_type = [f"{name}#{number}" for name, number in zip(ids, _numbers(owners), strict=True)], pa.string()
        if job.text in columns.column_names:  # of a document the parts have what was embedded
            place = columns.column_names.index(job.text)
            columns = columns.set_column(place, job.text, pa.array(texts, pa.string()))
    hashes = [text_hash(text) for text in texts]
    row_hashes = [] if job.store is None else _row_hashes(ids, hashes, columns)
    return PartRows(ids, id_type, None, hashes, columns, row_hashes)


def _row_hashes(ids: Sequence[Any], hashes: Sequence[bytes], columns: Any) -> list[bytes]:
    others = columns.to_pylist() or [{}] * len(ids)
    return [
        text_hash(json.dumps([str(name), hashed.hex(), kept], sort_keys=True, default=str))
        for name, hashed, kept in zip(ids, hashes, others, strict=True)
    ]


def _part_rows(work: _Work, rows: PartRows) -> PartRows:
    """Return what the part contains, without the documents that are dead.

    Args:
        work: done.
        rows: all, but for their vectors.
    """
    pa, _ = arrow()
    kept = [place for place, owner in enumerate(work.owners) if owner not in work.letters]
    fresh = [number for number, place in enumerate(kept) if work.vectors[place] is not UNCHANGED]
    return PartRows(
        [rows.ids[place] for place in kept],
        rows.id_type,
        _stacked(work, [work.vectors[kept[number]] for number in fresh]),
        [rows.hashes[place] for place in kept],
        rows.kept.take(pa.array(kept, pa.int64())),
        [rows.row_hashes[place] for place in kept] if rows.row_hashes else (),
        None if len(fresh) == len(kept) else fresh,
    )


def _numbers(owners: Sequence[int]) -> Iterator[int]:
    """Number the passages of each document from 0."""
    last, number = -1, 0
    for owner in owners:
        number = number + 1 if owner == last else 0
        last = owner
        yield number


def _stacked(work: _Work, vectors: list[Any]) -> Any:
    """Return rows as one array; with no row it has the dimension of the space all the same, which a file wants to know."""
    np = numpy()
    if vectors:
        return np.stack(vectors).astype("f4", copy=False)
    if work.job.store is not None:
        return np.empty((0, 0), "f4")
    dimension = work.gateway.space.dimension or work.gateway.embed(["a text"]).vectors.dim
    return np.empty((0, dimension), "f4")
