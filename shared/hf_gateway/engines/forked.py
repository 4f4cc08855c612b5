"""Engines in a process that was forked from one in which they ran.

Their threads are not there. OpenVINO and ONNX Runtime then compute with the calling thread alone, and torch, whose threads
would be waited for, is told to; what was being computed at that moment, or is on a GPU, is refused.
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
    "start processes by spawn or forkserver, fork before the first use or while nothing is computed, or let a server hold the "
    "model (target 'tei', 'endpoint' or 'openai')"
)
LOADING = "a model's loader"

compute_guard = ForkGate(
    lambda name: EngineFailed(
        f"this process was forked while {name} was at work in its parent, and would hang: {REMEDY}"
    )
)
"""Through which every computation and every loading goes, by the name of the library."""


class _Torch:
    inherited = False


@contextlib.contextmanager
def torch_computes(device: str = "cpu", process: int | None = None) -> Iterator[None]:
    """Let torch compute meanwhile, in this thread alone where its threads stayed in the parent.

    Args:
        device: where the model is.
        process: the one that loaded it.

    Raises:
        EngineFailed: it cannot in this process.
    """
    if device != "cpu" and process not in (None, os.getpid()):
        raise EngineFailed(f"the model is on {device}, which a forked process cannot use: {REMEDY}")
    with compute_guard.using("torch"):
        if _Torch.inherited:
            import torch

            torch.set_num_threads(1)
            _Torch.inherited = False
            log.info(
                "torch computes in one thread here, since its threads stayed in the process that this was forked from"
            )
        yield


def _in_child() -> None:
    _Torch.inherited = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
