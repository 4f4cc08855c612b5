"""A job: its plan, its workers, the records of finished parts and `_SUCCESS`."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from hf_gateway.corpus.beginning import Beginning
from hf_gateway.corpus.collection import Collection
from hf_gateway.corpus.engine import open_engine
from hf_gateway.corpus.folders import JobFolders, finish_update, folders_of
from hf_gateway.corpus.inputs import find_files
from hf_gateway.corpus.job_settings import MAX_BAD_ROWS, Dtype, Form, JobSettings, OnBadRow, check_sizes
from hf_gateway.corpus.lance_files import commit_fragments, lance
from hf_gateway.corpus.part_records import RECORDS, open_records, read_records, remove_passing_files, succeed
from hf_gateway.corpus.parts import SUCCESS, dead_file, part_file
from hf_gateway.corpus.passages import splitting_of
from hf_gateway.corpus.plan import Plan, Shard
from hf_gateway.corpus.reuse import INDEX
from hf_gateway.corpus.shard_queue import embed_shards
from hf_gateway.corpus.worker import gateway_of, limited_transport
from hf_gateway.errors import ConfigError, InvalidRequest
from hf_gateway.storage.files import interprocess_lock
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

SHARD_ROWS = 10_000
SHARD_BYTES = 64 * 2**20

Source = str | Path | Iterable[str] | Iterable[Mapping[str, Any]]
"""A path, folder, glob or URL of files; or an Arrow table, a dataset of `datasets`, an iterable of texts or mappings."""


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """What a finished job did, or how far one is."""

    rows: int
    """Rows of the inputs that are done: embedded, or dead."""
    total: int
    """Rows of the inputs."""
    dead: int
    """Rows that could not be embedded, each with a dead letter."""
    vectors: int
    """Rows of all parts."""
    reused: int
    """Of these, rows whose vectors an earlier job had."""
    parts: int
    """Parts that are done."""
    resumed: int
    """Parts that an earlier run had finished."""
    tokens: int | None
    """Tokens of all parts, as the targets counted them; None if one did not."""
    run_tokens: int | None
    """Of these, the tokens of this run."""
    cost_usd: Decimal | None
    """What all parts cost; None if that of one is unknown."""
    seconds: float
    """How long this run takes so far."""
    part: str | None = None
    """The part that was written last by this run."""


def embed_dataset(
    source: Source,
    out: str | Path,
    *,
    text: str = "text",
    id: str = "id",  # noqa: A002 - what the column is called
    keep: Sequence[str] = (),
    workers: int = 1,
    engine: str = "local",
    gpus: float = 0.0,
    shard_rows: int = SHARD_ROWS,
    shard_bytes: int = SHARD_BYTES,
    on_bad_row: OnBadRow = "fail",
    max_bad: int = MAX_BAD_ROWS,
    split: int | None = None,
    form: Form = "parquet",
    dtype: Dtype = "float32",
    limit_rps: float | None = None,
    limit_tps: float | None = None,
    redis: str | None = None,
    since: str | Path | None = None,
    job_folder: str | Path | None = None,
    chain: str | None = None,
    config: str | None = None,
    on_part: Callable[[CorpusReport], None] | None = None,
    **settings: Any,
) -> CorpusReport:
    """Embed the texts of files or rows into a folder of parts; called again with the same arguments, it resumes.

    Args:
        source: a file, a folder, a glob or a URL of fsspec; or an Arrow table, a dataset of `datasets`, an iterable of
            texts or of mappings, which are written into the folder first.
        out: the folder: new, empty, or of the same job; or a collection of a store: "qdrant:WHERE#COLLECTION", "lancedb:…",
            "chroma:…", "postgresql://USER@HOST/DATABASE#TABLE", WHERE being a folder or a URL.
        text: the column of the texts, or a template over several: "{title}: {body}".
        id: the column of the ids; without one the ids are `file#row`.
        keep: columns that are copied into the parts.
        workers: processes, each with the model.
        engine: what runs them: "local" on this machine, or "ray" on the cluster that `RAY_ADDRESS` names or that the job starts.
        gpus: GPUs, or the share of one, of each worker; only with "ray".
        shard_rows: rows of a part at most; a worker holds their texts and vectors in memory.
        shard_bytes: bytes of a part's texts at most.
        on_bad_row: what a row means that cannot be embedded by its own fault: "fail" ends the job, "dead-letter" writes its id
            and the error beside the part.
        max_bad: dead letters at most.
        split: cut documents into passages of so many tokens at most, special tokens included; their ids are `doc#n`.
        form: the format of the parts: "parquet", "arrow", "npy" with a file of the other columns beside it, or "lance".
        dtype: of the vectors in the parts: "float32" or "float16".
        limit_rps: requests a second that all workers send to a server at most.
        limit_tps: tokens a second that all workers send to a server at most.
        redis: URL of a Redis in which the limits are kept, also with other jobs; without it each worker has its share.
        since: the folder of an earlier job of the same space: texts that it has are not embedded again. If it is `out`, that is
            brought up to date.
        job_folder: what is kept of a job that writes into a store; the collection's name with `.job` by default.
        chain: name of a chain of the config file, whose settings the others override.
        config: path of the config file.
        on_part: called when a part is written.
        **settings: of the gateway, as JSON has them: `model`, `targets`, `truncate` …

    Raises:
        ConfigError: the folder is of another job, or the inputs cannot be read.
        SpaceMismatch: the folder is of another vector space.
        InvalidRequest: a row cannot be embedded, or too many cannot; the finished parts are kept.
        GatewayError: the error of the targets, as a single call would raise it; the finished parts are kept.
    """
    check_sizes(shard_rows, shard_bytes, workers)
    if gpus and engine == "local":
        raise ConfigError("workers are given shares of GPUs by Ray: name engine 'ray', too")
    folders = folders_of(out, since, job_folder)
    job = JobSettings(
        out=str(folders.work),
        store=None if folders.store is None else folders.store.url,
        text=text,
        id=id,
        keep=tuple(keep),
        chain=chain,
        config=config,
        settings=settings,
        on_bad_row=on_bad_row,
        max_bad=max_bad,
        form=form if folders.store is None or form != "parquet" else "store",
        dtype=dtype,
        limit_rps=limit_rps,
        limit_tps=limit_tps,
        redis=redis,
        workers=workers,
        gpus=gpus,
        since=None if folders.earlier is None else str(folders.earlier),
        updates_store=folders.store is not None and folders.in_place,
    )
    job.check()
    if form == "lance":
        lance()  # raises if the package is missing
        if folders.in_place:
            raise ConfigError("a Lance dataset is not brought up to date in its place: embed into a new folder")
    begun = time.monotonic()
    files = find_files(source) if isinstance(source, str | Path) else None
    with contextlib.ExitStack() as held:
        with contextlib.closing(gateway_of(job, limited_transport(job))) as gateway:
            gateway.lock_index(folders.folder)
            if gateway.final_space is None:
                gateway.embed(["a text"])  # decides for all workers which of the spaces it is
            if split is not None:
                job = replace(job, split=asdict(splitting_of(gateway, split)))
            held.enter_context(interprocess_lock(folders.folder / ".job.lock"))
            begin = Beginning(folders, job, gateway.space)
            gateway.lock_index(folders.work)
            plan = begin.plan(source, files, shard_rows, shard_bytes)
            run = _Run(begin.folders, begin.job, plan, begun)
            run.prepare_collection(gateway)
        return run.finish(engine, on_part)


class _Run:
    """One run of a job."""

    def __init__(self, folders: JobFolders, job: JobSettings, plan: Plan, begun: float) -> None:
        self._folders, self._job, self._plan, self._begun = folders, job, plan, begun
        self._collection = None if folders.store is None else Collection(folders.store, job)
        self._folder = folders.work
        remove_passing_files(self._folder)
        self._done = read_records(self._folder, job.form, plan)
        self._totals, self._resumed = replace(self._done.totals), self._done.totals.parts
        self._tokens_before = self._done.totals.tokens
        self._missing: list[Shard] = [plan.shards[index] for index in self._done.missing()]

    def prepare_collection(self, gateway: EmbeddingGateway) -> None:
        """Make the collection of a job that writes into a store, or check it; a job that is done only counts its rows."""
        if self._collection is not None and self._missing:
            is_new = not self._folders.in_place and not (self._folder / RECORDS).exists()
            self._collection.prepare(gateway, self._plan, is_new=is_new)

    def finish(self, engine: str, on_part: Callable[[CorpusReport], None] | None) -> CorpusReport:
        """Embed what is missing, and write `_SUCCESS`."""
        self._check_dead()
        if self._missing:  # a part was taken away since: readers go by the list of parts
            (self._folder / SUCCESS).unlink(missing_ok=True)
            self._embed_missing(engine, on_part)
            remove_passing_files(self._folder)
            self._done = read_records(self._folder, self._job.form, self._plan)
        (self._folder / INDEX).unlink(missing_ok=True)
        if self._collection is not None:
            self._collection.finish(self._folder, self._plan, self._folders.earlier)
        facts = {}
        if self._job.form == "lance":
            files = [part_file(name, "lance") for name in self._plan.part_names()]
            facts = commit_fragments(self._folder, files)
        succeed(self._folder, self._plan, self._job.form, self._done, **facts)
        finish_update(self._folders.folder)
        return self._report(None)

    def _embed_missing(self, engine: str, on_part: Callable[[CorpusReport], None] | None) -> None:
        job = replace(
            self._job, workers=min(self._job.workers, len(self._missing))
        )  # they share the CPUs and the limits
        with contextlib.closing(open_engine(engine, job)) as started, open_records(self._folder) as records:
            for result in embed_shards(started, self._plan, self._missing, job.workers):
                records.add(result)
                self._totals.add(result)
                if on_part is not None:
                    on_part(self._report(self._plan.shards[result.index].name))
                self._check_dead()

    def _check_dead(self) -> None:
        if self._totals.dead > self._job.max_bad:
            raise InvalidRequest(
                f"{self._totals.dead} rows cannot be embedded, more than the {self._job.max_bad} that are allowed; the files "
                f"{dead_file('part-*')} name them. If the rows are at fault, allow more of them (--max-bad): the finished "
                "parts are kept"
            )

    def _report(self, part: str | None) -> CorpusReport:
        done, before = self._totals, self._tokens_before
        return CorpusReport(
            rows=done.rows + done.dead,
            total=self._plan.rows,
            dead=done.dead,
            vectors=done.vectors,
            reused=done.reused,
            parts=done.parts,
            resumed=self._resumed,
            tokens=done.tokens,
            run_tokens=None if before is None or done.tokens is None else done.tokens - before,
            cost_usd=done.cost_usd,
            seconds=time.monotonic() - self._begun,
            part=part,
        )
