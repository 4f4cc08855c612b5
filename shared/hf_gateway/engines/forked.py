"""Engines in a process that was forked from one in which they ran.

Their threads do not exist in the child. OpenVINO and ONNX Runtime compute with the calling thread alone; torch, which
would wait for its threads, is set to one thread. A computation that was running during the fork, or that uses a GPU,
is refused.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from hf_gateway.errors import EngineFailed
from hf_gateway.values.forks import ForkGate
from hf_gateway.values.logs import logger

log = logger(__name__)

REMEDY = (
    "start processes by spawn or forkserver, fork before the first use or between computations, or run the model in a server "
    "(target 'tei', 'endpoint' or 'openai')"
)
LOADING = "a model's loader"

compute_guard = ForkGate(
    lambda name: EngineFailed(
        f"this process was forked while {name} was computing in its parent, and would hang: {REMEDY}"
    )
)
"""Guards every computation and every load, by the name of the library."""


class _Torch:
    inherited = False


@contextlib.contextmanager
def torch_computes(device: str = "cpu", process: int | None = None) -> Iterator[None]:
    """Context for computing with torch, in this thread alone if its threads stayed in the parent process.

    Args:
        device: device of the model.
        process: id of the process that loaded it.

    Raises:
        EngineFailed: torch cannot compute in this process.
    """
    if device != "cpu" and process not in (None, os.getpid()):
        raise EngineFailed(f"the model is on {device}, which a forked process cannot use: {REMEDY}")
    with compute_guard.using("torch"):
        if _Torch.inherited:
            import torch

            torch.set_num_threads(1)
            _Torch.inherited = False
            log.info(
                "torch computes in one thread here, since its threads stayed in the process that this one was forked from"
            )
        yield


def _in_child() -> None:
    _Torch.inherited = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
