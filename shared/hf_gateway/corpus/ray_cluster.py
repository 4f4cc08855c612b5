"""A Ray cluster of one job on this machine: a process that starts it, and ends it with its own standard input.

Were the driver the parent of the cluster, Ray's agents would live for a minute after a `kill -9` of the driver.
"""

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading

from hf_gateway.errors import ConfigError

STORE_BYTES = 80 * 2**20
"""Of the object store: nearly the least that Ray takes, since only descriptions of shards pass through it."""
START_S = 120
"""Seconds for the start of a node, which Ray gives 30: its agents compute for some, on cores that other work has, too."""
END_S = 8.0
"""Seconds for the end of a cluster."""


def private_environment() -> dict[str, str]:
    """Return variables by which a cluster and its drivers use the loopback address alone and a new token.

    Actors run at the driver's priority, as the workers of the local engine do.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # by which Ray takes 127.0.0.1 for the address of the machine
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": str(START_S),
        "RAY_worker_niceness": "0",  # 15 otherwise: beside other work an actor would get a few per cent of its core
    }


class OwnCluster:
    """The process of a cluster."""

    def __init__(self, cpus: int) -> None:
        """Start it and wait until it runs; it takes its variables from this process.

        Args:
            cpus: how many it offers, whether or not the machine has them.

        Raises:
            ConfigError: it does not start; its standard error, which is this process's, says why.
        """
        command = [sys.executable, "-m", "hf_gateway.corpus.ray_cluster", str(cpus)]
        self._process = subprocess.Popen(  # noqa: S603 - this program; Ctrl-C and signals to the group are not for it
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            self.close()
            raise ConfigError("Ray does not start on this machine: see the lines above")

    def close(self) -> None:
        """End the cluster, and wait for that."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        try:
            process.wait(END_S + 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Run a cluster until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    address = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import ray

    ray.init(
        "local",
        num_cpus=int(sys.argv[1]),
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    address.write(ray.get_runtime_context().gcs_address + "\n")
    address.close()
    sys.stdin.read()
    late = threading.Timer(END_S, os.kill, [os.getpid(), signal.SIGKILL])  # Ray's processes then die with this one
    late.daemon = True
    late.start()
    ray.shutdown()


if __name__ == "__main__":
    main()
