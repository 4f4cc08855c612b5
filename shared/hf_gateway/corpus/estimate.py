"""What a job will need, before anything is embedded for money: rows, tokens, price, time and disk."""

import contextlib
import io
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hf_gateway.corpus.costs import known_prices
from hf_gateway.corpus.documents import Document, read_documents
from hf_gateway.corpus.inputs import find_files, write_given_rows
from hf_gateway.corpus.job_settings import Dtype, JobSettings, check_sizes
from hf_gateway.corpus.parts import HASH_BYTES, text_hash
from hf_gateway.corpus.passages import cut, splitting_of
from hf_gateway.corpus.plan import Plan, make_shards
from hf_gateway.corpus.reuse import EarlierVectors, earlier_job, write_index
from hf_gateway.corpus.worker import gateway_of
from hf_gateway.engines.token_count import count_tokens, encode_text
from hf_gateway.errors import InvalidRequest
from hf_gateway.retrieval.files import arrow
from hf_gateway.retrieval.splitting import MARKING_TOKENS
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.usage import Usage

SAMPLE_ROWS = 1000
SAMPLE_PARTS = 20
"""Of how many parts the sample's rows are."""


@dataclass(frozen=True, slots=True)
class CorpusEstimate:
    """What a job will need."""

    rows: int
    """Rows of the inputs."""
    parts: int
    """Parts."""
    vectors: int
    """Rows of all parts, by the sample if documents are cut."""
    sample_rows: int
    """Rows of the sample."""
    bad_rows: int
    """Rows of the sample that have no text."""
    tokens: int
    """Tokens of all texts, by the sample."""
    tokens_error: float
    """Half the width of the 95 % confidence interval of `tokens`, as a fraction of them; 0 if every row was counted."""
    counted: str
    """How tokens were counted: "embedded" by a model in this process, by its "tokenizer", or an "estimate" by bytes."""
    cost_usd: Decimal | None
    """By the most expensive of the targets; None if the price of one is unknown."""
    seconds: float | None
    """For one worker, by the sample; None for a target that is not in this process, which was sent nothing."""
    disk_bytes: int | None
    """Of all parts; None if the dimension is unknown."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """The sampled documents of a shard."""

    documents: Sequence[Document]
    kept_bytes: float
    """Of a row's other columns."""


def estimate_dataset(
    source: Any,
    *,
    text: str = "text",
    id: str = "id",  # noqa: A002 - what the column is called
    keep: Sequence[str] = (),
    shard_rows: int,
    shard_bytes: int,
    split: int | None = None,
    dtype: Dtype = "float32",
    since: str | Path | None = None,
    chain: str | None = None,
    config: str | None = None,
    sample_rows: int = SAMPLE_ROWS,
    **settings: Any,
) -> CorpusEstimate:
    """Estimate what a job will need, by a sample of its rows; writes nothing, and sends hosted targets nothing.

    A model in this process embeds the sample, which gives its tokens and the time.

    Args:
        source: as of `embed_dataset`; rows that Python gives are copied into a temporary folder, so give what can be read again.
        text: the column of the texts, or a template.
        id: the column of the ids.
        keep: columns that are copied.
        shard_rows: rows of a part at most.
        shard_bytes: bytes of a part's texts at most.
        split: tokens of a passage at most; None for whole documents.
        dtype: "float32" or "float16".
        since: the folder of an earlier job; texts that it has take neither tokens nor time.
        chain: name of a chain of the config file.
        config: path of the config file.
        sample_rows: rows of the sample at most.
        **settings: of the gateway.

    Raises:
        ConfigError: the inputs cannot be read, settings are invalid, or the earlier job has nothing to take over.
        SpaceMismatch: the earlier job is of another space.
        GatewayError: the model in this process cannot embed the sample.
    """
    job = JobSettings(
        out="", text=text, id=id, keep=tuple(keep), chain=chain, config=config, settings=settings, dtype=dtype
    )
    job.check()
    check_sizes(shard_rows, shard_bytes)
    with contextlib.ExitStack() as held:
        if isinstance(source, str | Path):
            files = find_files(source)
        else:
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="hf-gateway-"))
            files = write_given_rows(source, Path(folder), job.columns)
        plan = Plan("", files, make_shards(files, job.needed_columns, id, shard_rows, shard_bytes))
        samples = _samples(plan, job, sample_rows)
        gateway = held.enter_context(contextlib.closing(gateway_of(job)))
        earlier = None
        if since is not None:
            earlier_job(Path(since), job, gateway.space)  # raises for one from which nothing can be taken
            index = Path(
                held.enter_context(tempfile.TemporaryDirectory(prefix="hf-gateway-", ignore_cleanup_errors=True))
            )
            write_index(Path(since), index, "text_hash")
            earlier = EarlierVectors(Path(since), index)
        return _Estimate(gateway, plan, samples, dtype, split, earlier).result(config)


def _samples(plan: Plan, job: JobSettings, rows: int) -> list[_Sample]:
    """Take the rows of several shards, the same ones each time."""
    dice = random.Random(0)  # noqa: S311 - no secret
    shards = plan.shards if plan.rows <= rows else dice.sample(plan.shards, min(SAMPLE_PARTS, len(plan.shards)))
    found = []
    for shard in shards:
        documents = read_documents(plan.files[shard.file], shard, job)
        most = shard.rows if plan.rows <= rows else max(1, rows // len(shards))
        taken = dice.sample(range(shard.rows), min(most, shard.rows))
        found.append(_Sample([documents.rows[place] for place in taken], documents.kept.nbytes / shard.rows))
    return found


class _Estimate:
    """An estimate in the making."""

    def __init__(
        self,
        gateway: EmbeddingGateway,
        plan: Plan,
        samples: Sequence[_Sample],
        dtype: str,
        split: int | None,
        earlier: EarlierVectors | None,
    ) -> None:
        self._earlier = earlier
        self._gateway, self._plan, self._samples, self._dtype = gateway, plan, samples, dtype
        self._local = all(kind_of(target.kind).in_process for target in gateway.targets)
        self._splitting = None
        if split is not None:
            self._splitting = splitting_of(gateway, split, send=self._local)
        self._seconds = 0.0

    def result(self, config: str | None) -> CorpusEstimate:
        documents = [document for sample in self._samples for document in sample.documents]
        if not documents:
            raise InvalidRequest("there are no rows to embed")
        texts = [self._texts(sample.documents) for sample in self._samples]
        if self._local:
            self._gateway.embed(["a text"])  # loads the model, which is not what the rows take
        counts = [self._tokens(self._new(each)) for each in texts]
        scale = self._plan.rows / len(documents)
        tokens, vectors = round(sum(counts) * scale), round(sum(map(len, texts)) * scale)
        return CorpusEstimate(
            rows=self._plan.rows,
            parts=len(self._plan.shards),
            vectors=vectors,
            sample_rows=len(documents),
            bad_rows=sum(document.fault is not None for document in documents),
            tokens=tokens,
            tokens_error=self._error(counts),
            counted=self._way_of_counting,
            cost_usd=self._cost(config, tokens),
            seconds=self._seconds * scale if self._local else None,
            disk_bytes=self._disk(documents, vectors),
        )

    @property
    def _way_of_counting(self) -> str:
        space = self._gateway.space
        exact = encode_text("a", space.model, space.revision) is not None
        return "embedded" if self._local else "tokenizer" if exact else "estimate"

    def _texts(self, documents: Sequence[Document]) -> list[str]:
        if self._splitting is None:
            return [document.text for document in documents if document.fault is None]
        return cut(self._gateway, documents, self._splitting)[1]

    def _new(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that the earlier job does not have."""
        known = {} if self._earlier is None else self._earlier.places([text_hash(text) for text in texts])
        return [text for place, text in enumerate(texts) if place not in known]

    def _tokens(self, texts: Sequence[str]) -> int:
        if not texts:
            return 0
        if self._local:
            begun = time.monotonic()
            used = self._gateway.embed(texts).usage.input_tokens
            self._seconds += time.monotonic() - begun
            return used or 0
        space = self._gateway.space
        prompt = space.document_prompt or ""
        return sum(count_tokens(prompt + text, space.model, space.revision) + MARKING_TOKENS for text in texts)

    def _error(self, counts: Sequence[int]) -> float:
        """Return the relative error of the mean; the shards of the sample are its clusters."""
        rows = [len(sample.documents) for sample in self._samples]
        if sum(rows) == self._plan.rows or not sum(counts):
            return 0.0
        means = [count / row for count, row in zip(counts, rows, strict=True)]
        if len(means) < 2:
            texts = self._new(self._texts(self._samples[0].documents))
            means = [float(len(text.encode())) for text in texts]  # within one shard, rows are compared by their bytes
        if len(means) < 2:
            return 1.0
        # 1.96 standard errors on each side: within them are 95 % of all samples.
        return 1.96 * statistics.stdev(means) / math.sqrt(len(means)) / statistics.mean(means)

    def _cost(self, config: str | None, tokens: int) -> Decimal | None:
        prices = known_prices(config)
        found = [prices.dearest(target, "embedding") for target in self._gateway.targets]
        costs = [None if price is None else price.amount("embedding", Usage(tokens, 0)) for price in found]
        return None if None in costs else max((cost for cost in costs if cost is not None), default=None)

    def _disk(self, documents: Sequence[Document], vectors: int) -> int | None:
        dimension = self._gateway.space.dimension
        if dimension is None:
            return None
        pa, pq = arrow()
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": [str(document.id) for document in documents]}), sink)
        kept = statistics.mean(sample.kept_bytes for sample in self._samples)
        number = 2 if self._dtype == "float16" else 4
        return round(vectors * (dimension * number + HASH_BYTES + sink.tell() / len(documents) + kept))
