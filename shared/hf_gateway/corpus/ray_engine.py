"""The Ray engine: workers are actors on the nodes of a cluster, each with a model in its memory.

An actor is sent where the rows of a shard are and answers with counts: it reads the rows and writes the part itself, no text and
no vector passes through Ray. With `RAY_ADDRESS` or after `ray.init` the job joins that cluster; otherwise it starts one on
this machine, whose ports are on the loopback address and want a token, and which ends with it.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_gateway.corpus.engine import Worker, WorkerDied
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.ray_cluster import OwnCluster, private_environment
from hf_gateway.corpus.worker import ShardWorker
from hf_gateway.corpus.worker_errors import pack, unpack
from hf_gateway.engines import cpus
from hf_gateway.errors import ConfigError, GatewayError, visible
from hf_gateway.storage.files import home, interprocess_lock, write_atomically

_END_S = 30.0
"""Seconds within which an actor ends whose work is done."""


class ShardActor:
    """What runs in an actor: the worker of one job."""

    def __init__(self, job: Mapping[str, Any], folder: str, sharing: int = 1) -> None:
        """Load the model; its files are fetched or converted by the first actor of a machine, while the others wait.

        Args:
            job: the fields of the settings.
            folder: the driver's, from which relative paths are meant.
            sharing: how many actors divide the machine's CPUs; 1 if that is not known.
        """
        cpus.share(sharing)
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
        if os.path.isdir(folder):  # noqa: PTH112 - of this machine, which may be another one
            os.chdir(folder)
        settings = JobSettings(**job)
        self._worker = ShardWorker(settings)
        self._fault: str | None = None
        try:
            with _first_on_this_machine(settings.name) as first:
                if first:
                    self._worker.load()
            self._worker.load()
        except (GatewayError, ImportError, OSError, ValueError, TypeError) as error:
            self._fault = pack(error)

    def fault(self) -> str | None:
        """Return the packed error for which the model cannot be loaded; None if it is loaded."""
        return self._fault

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Write the part of a shard; return its result, or the error that ends the job.

        Args:
            task: the shard.
        """
        return self._worker.answer(task)

    def finish(self) -> None:
        """Write what is still to be written."""
        self._worker.close()


@contextlib.contextmanager
def _first_on_this_machine(job: str) -> Iterator[bool]:
    """Yield whether no process of this machine has loaded the model of a job before; the others wait meanwhile."""
    loaded = home() / "corpus-loaded"
    loaded.parent.mkdir(parents=True, exist_ok=True)
    with interprocess_lock(loaded.with_suffix(".lock")):
        first = not loaded.is_file() or loaded.read_text(encoding="utf-8") != job
        yield first
        if first:
            write_atomically(loaded, job.encode())


class RayEngine:
    """Starts actors, in a cluster that is there or in its own."""

    def __init__(self, job: JobSettings) -> None:
        """Join a cluster, or start one.

        Args:
            job: what the workers do.

        Raises:
            ConfigError: Ray is not installed, or the cluster cannot be joined.
        """
        self._before: dict[str, str | None] = {}
        self._connected = False
        self._cluster: OwnCluster | None = None
        count, cpus_each, sharing = cpus.usable(), 1, 1
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._set_environment()
            self._ray = _ray()
            if not self._ray.is_initialized():
                address = os.environ.get("RAY_ADDRESS")
                if not address:
                    cpus_each, sharing = max(1, count // job.workers), job.workers
                    self._cluster = OwnCluster(max(count, job.workers))
                    address = self._cluster.address
                self._connect(address, job.gpus)
            undo.pop_all()
        self._actor = self._ray.remote(ShardActor).options(
            num_cpus=cpus_each, num_gpus=job.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._arguments = (asdict(job), str(Path.cwd()), sharing)

    def _connect(self, address: str, gpus: float) -> None:
        self._connected = True
        try:  # standard output is the report's: nothing of the actors goes there
            self._ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise ConfigError(f"the Ray cluster at {visible(address)} cannot be joined: {error}") from error
        if self._cluster is not None and gpus > (there := self._ray.cluster_resources().get("GPU", 0.0)):
            raise ConfigError(f"each worker asks for {gpus:g} GPUs, and Ray finds {there:g} on this machine")

    def start_worker(self) -> Worker:
        """Ask for an actor; Ray starts it where there is room."""
        return RayWorker(self._ray, self._actor.remote(*self._arguments))

    def close(self) -> None:
        """Leave the cluster; end it if it is the job's own."""
        if self._connected:
            self._connected = False
            self._ray.shutdown()
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()

    def _set_environment(self) -> None:
        """Set what Ray reads when it is imported or starts, for as long as the engine is open."""
        if not os.environ.get("RAY_ADDRESS"):
            wanted = private_environment()
            self._before = {name: os.environ.get(name) for name in wanted}
            os.environ.update(wanted)


class RayWorker:
    """An actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        """Wait for nothing.

        Args:
            ray: the module.
            actor: its handle.
        """
        self._ray, self._actor = ray, actor
        self._loaded = actor.fault.remote()
        self._is_ready = False

    def is_ready(self, timeout: float) -> bool:
        """Return whether the actor runs and has loaded its model.

        Args:
            timeout: seconds to wait for that.

        Raises:
            WorkerDied: it ended.
            GatewayError: the model cannot be loaded.
        """
        if not self._is_ready:
            if not self._ray.wait([self._loaded], timeout=timeout)[0]:
                return False
            fault = self._result(self._loaded)
            if fault is not None:
                raise unpack(fault)
            self._is_ready = True
        return True

    def embed(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Have a shard embedded.

        Args:
            task: the shard.

        Raises:
            WorkerDied: the actor or its node ended, or does not answer any more.
        """
        found: dict[str, Any] = self._result(self._actor.answer.remote(task))
        return found

    def finish(self) -> None:
        """Let the actor write what it still has to write."""
        with contextlib.suppress(WorkerDied):
            self._result(self._actor.finish.remote(), _END_S)

    def kill(self) -> None:
        """End the actor, also one that has not been placed yet."""
        with contextlib.suppress(Exception):  # the cluster is gone
            self._ray.kill(self._actor)

    def _result(self, reference: Any, timeout: float | None = None) -> Any:
        try:
            return self._ray.get(reference, timeout=timeout)
        except self._ray.exceptions.RayTaskError:  # a defect, which another actor has, too
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkerDied(str(error)) from None


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"the engine ray needs Ray: pip install 'hf-gateway[ray]' ({error})") from None
    return ray
