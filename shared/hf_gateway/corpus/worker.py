"""A worker process: reads shards from stdin, a JSON line each, writes their parts, answers a line each; ends with its stdin."""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hf_gateway import ledger
from hf_gateway.corpus.costs import CostCounter, known_prices
from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.plan import Shard
from hf_gateway.corpus.rate_limit import (
    WAIT_TIMEOUT_S,
    LimitedTransport,
    LocalTurns,
    RateLimits,
    RedisTurns,
)
from hf_gateway.corpus.reuse import EarlierVectors
from hf_gateway.corpus.shard_embedding import ShardResult, embed_shard
from hf_gateway.corpus.worker_errors import pack
from hf_gateway.engines import cpus
from hf_gateway.errors import GatewayError
from hf_gateway.observing import observer
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.kinds import kind_of

END = "end"
"""The line after which a worker writes what it still has to write, and ends."""


class ShardWorker:
    """Embeds shards of one job, with one gateway."""

    def __init__(self, job: JobSettings) -> None:
        """Nothing is loaded before the first shard."""
        self._job = job
        self._gateway: EmbeddingGateway | None = None
        self._transport: LimitedTransport | None = None
        self._costs: CostCounter
        self._earlier: EarlierVectors | None = None

    def load(self) -> None:
        """Load the model before the first shard; what a server has is loaded there.

        Raises:
            GatewayError: it cannot be loaded, or is of another space.
        """
        gateway = self._opened()
        if kind_of(gateway.targets[0].kind).in_process:
            with observer.tagged(request=self._job.name):
                gateway.embed(["a text"])
            self._costs.take()

    def _opened(self) -> EmbeddingGateway:
        if self._gateway is None:
            self._transport = limited_transport(self._job)
            self._gateway = gateway_of(self._job, self._transport)
            self._gateway.lock_index(self._job.out, adopt=True)
            if self._job.since is not None:
                self._earlier = EarlierVectors(Path(self._job.since), Path(self._job.out))
            self._costs = CostCounter(known_prices(self._job.config))
            observer.register(self._costs)
        return self._gateway

    def embed(self, file: InputFile, shard: Shard) -> ShardResult:
        """Write the part of a shard.

        Args:
            file: the shard's.
            shard: what to embed.

        Raises:
            GatewayError: a text cannot be embedded.
            OSError: a file cannot be read or written.
        """
        gateway = self._opened()
        settle = None if self._transport is None else self._transport.settle
        with observer.tagged(request=self._job.name):
            result = embed_shard(gateway, file, shard, self._job, settle, self._earlier)
        result = replace(result, cost_usd=self._costs.take())
        if (kept := ledger.enabled()) is not None:  # a part is not recorded before its calls are
            kept.flush()
        return result

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Write the part of a shard; return its result, or the error that ends the job.

        Args:
            task: the shard, as `engine.task_of` describes it.
        """
        try:
            return asdict(self.embed(InputFile(**task["file"]), Shard(**task["shard"])))
        except (GatewayError, ImportError, OSError, ValueError, TypeError) as error:
            return {"error": pack(error)}

    def close(self) -> None:
        """Close connections, and write what the ledger still holds."""
        if self._gateway is not None:
            self._gateway.close()
            observer.unregister(self._costs)
        ledger.disable_budgets()
        ledger.disable()


def serve() -> None:
    """Make the parts of all lines, by the settings that the first line has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    job = JobSettings(**json.loads(lines.get()))
    cpus.share(job.workers)
    worker = ShardWorker(job)
    while (line := lines.get().strip()) != END:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()
    worker.close()


def _read_lines(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
        if line.strip() == END:
            return
    os._exit(0)  # the driver has ended: so does the shard under way


def gateway_of(job: JobSettings, transport: LimitedTransport | None = None) -> EmbeddingGateway:
    """Build the gateway of a job.

    Args:
        job: names a chain of the config file, and settings that override those of the chain.
        transport: keeps the job's limits; None for no limits.

    Raises:
        ConfigError: invalid settings; of a chain with file and line.
    """
    waiting = {} if transport is None else {"timeout": WAIT_TIMEOUT_S, "attempt_timeout": WAIT_TIMEOUT_S}
    settings = {**waiting, **job.settings}
    if job.chain is None:
        return EmbeddingGateway(**settings, config=job.config, transport=transport)
    named = EmbeddingGateway.settings_class.from_config(job.chain, job.config, **settings)
    made: EmbeddingGateway = EmbeddingGateway.from_settings(named, transport=transport)
    return made


def limited_transport(job: JobSettings) -> LimitedTransport | None:
    """Return what keeps a job's limits; None if it has none. Raises ConfigError if the Redis does not answer."""
    if job.limit_rps is None and job.limit_tps is None:
        return None
    if job.redis is not None:
        return LimitedTransport(RateLimits(job.limit_rps, job.limit_tps), RedisTurns(job.redis))
    shares = (None if limit is None else limit / job.workers for limit in (job.limit_rps, job.limit_tps))
    return LimitedTransport(RateLimits(*shares), LocalTurns())
