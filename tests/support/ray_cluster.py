"""A Ray cluster on the loopback address that wants a token: a process of its own, which a test tells to kill or add nodes.

All processes of the cluster end with that process, and it ends with its standard input.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus.ray_cluster import private_environment
from tests.support.processes import children, title

HEALTH = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""A dead node is noticed within seconds."""
STARTS = 5
"""How often the start of a node is tried."""


@dataclass
class RayCluster:
    """The process."""

    process: "subprocess.Popen[str]"
    environment: dict[str, str]
    """What a driver of the cluster needs."""
    raylets: dict[str, int]
    """The process of each node by the node's name; that of the head, which is never killed, is "head"."""

    def kill_node(self) -> list[int]:
        """Kill a node at once, and return its actors, which end with it."""
        before = dict(self.raylets)
        actors = {name: self.workers_of(raylet) for name, raylet in before.items()}
        self._tell("kill")
        return [pid for name, pids in actors.items() if name not in self.raylets for pid in pids]

    def add_node(self) -> None:
        """Start another node with one CPU."""
        self._tell("add")

    def workers(self) -> list[int]:
        """Return the processes of all nodes that are actors of a job."""
        return [pid for raylet in self.raylets.values() for pid in self.workers_of(raylet)]

    @staticmethod
    def workers_of(raylet: int) -> list[int]:
        """Return the actors of one node."""
        return [pid for pid in children(raylet) if title(pid).startswith("ray::ShardActor")]

    def _tell(self, command: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self.raylets = json.loads(self.process.stdout.readline())["raylets"]


@contextlib.contextmanager
def ray_cluster(nodes: int = 2) -> Iterator[RayCluster]:
    """Start a cluster.

    Args:
        nodes: with the head; each has one CPU.
    """
    environment = private_environment()
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of its sockets are long
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ray_cluster", folder, str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        yield RayCluster(process, {**environment, "RAY_ADDRESS": told["address"]}, told["raylets"])
    finally:
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run a cluster until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    folder, nodes = sys.argv[1:]
    node: dict[str, Any] = {
        "num_cpus": 1,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
        "temp_dir": folder,
    }
    # Each process that is not started is a second of a core: what follows logs, and what would ask a cloud for nodes.
    head = {**node, "_system_config": HEALTH, "include_log_monitor": False, "no_monitor": True}
    # Wherever the nodes have theirs, `Cluster` writes its address there, and does not make it.
    Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(initialize_head=True, head_node_args=head)

    def added() -> Any:
        for _ in range(STARTS - 1):
            with contextlib.suppress(Exception):  # Ray waits 30 s, which a busy machine may take longer
                return cluster.add_node(**node)
        return cluster.add_node(**node)

    alive = {"head": cluster.head_node} | {f"node-{number}": added() for number in range(1, int(nodes))}
    started = len(alive)

    def tell() -> None:
        raylets = {name: each.all_processes["raylet"][0].process.pid for name, each in alive.items()}
        answers.write(json.dumps({"address": cluster.address, "raylets": raylets}) + "\n")
        answers.flush()

    tell()
    for line in sys.stdin:
        if line.strip() == "kill":
            oldest = next(name for name in alive if name != "head")
            cluster.remove_node(alive.pop(oldest), allow_graceful=False)
        else:
            alive[f"node-{started}"] = added()
            started += 1
        tell()
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
