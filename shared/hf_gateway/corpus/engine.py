"""What runs a job's workers: an engine starts them, and the job hands them shards. A new engine is one file, named in `ENGINES`.

An engine does not decide what is embedded, when a part is finished or how often a shard is tried: `shard_queue` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any, Protocol

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.plan import Shard
from hf_gateway.errors import ConfigError

ENGINES = {"local": "hf_gateway.corpus.local_engine:LocalEngine", "ray": "hf_gateway.corpus.ray_engine:RayEngine"}
"""Where each engine's class is; it is called with the job's settings."""


class WorkerDied(Exception):
    """A worker has ended before it answered."""


class Worker(Protocol):
    """A process with a model that embeds one shard after another. Methods are called from one thread, but for `kill`."""

    def is_ready(self, timeout: float) -> bool:
        """Return whether the worker can take a shard.

        Args:
            timeout: seconds to wait for that.

        Raises:
            WorkerDied: it ended.
            GatewayError: it cannot be started; no other one could.
        """

    def embed(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Have a shard embedded, and return the worker's answer.

        Args:
            task: from `task_of`.

        Raises:
            WorkerDied: it ended.
        """

    def finish(self) -> None:
        """Let the worker write what it still has to write, and end it."""

    def kill(self) -> None:
        """End the worker at once, whatever it does."""


class Engine(Protocol):
    """Starts workers."""

    def start_worker(self) -> Worker:
        """Begin to start a worker; it need not be ready yet. Called from several threads."""

    def close(self) -> None:
        """End what the engine itself has started. No worker is left then."""


def open_engine(name: str, job: JobSettings) -> Engine:
    """Return an engine by its name.

    Args:
        name: of `ENGINES`.
        job: what its workers do.

    Raises:
        ConfigError: there is no such engine, or it is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}: {', '.join(ENGINES)}")
    module, _, cls = ENGINES[name].partition(":")
    make: Callable[[JobSettings], Engine] = getattr(import_module(module), cls)
    return make(job)


def task_of(file: InputFile, shard: Shard) -> dict[str, Any]:
    """Return all that a worker is sent for a shard: where its rows are, none of them.

    Args:
        file: the shard's.
        shard: what to embed.
    """
    return {"file": asdict(file), "shard": asdict(shard)}
