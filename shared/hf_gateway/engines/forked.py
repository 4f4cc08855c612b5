"""Engines in a process that was forked from one in which they ran.

Their threads do not exist in the child. OpenVINO computes with the calling thread alone; torch, which would wait for its
threads, is set to one thread; a session of ONNX Runtime is loaded again. A computation that was running during the fork, or
that uses a GPU, is refused. A runtime's object that the child inherited is never destroyed there, since its destructor would
wait for its threads.
"""

import contextlib
import ctypes
import os
import sys
import weakref
from collections.abc import Iterator
from typing import Any

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


_threaded: "weakref.WeakSet[Any]" = weakref.WeakSet()


def keep_in_children(threaded: Any) -> None:
    """Never destroy an object in a child process that inherits it, whatever drops it there.

    Args:
        threaded: holds objects of a runtime whose destructors wait for threads.
    """
    _threaded.add(threaded)


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
    for each in list(_threaded):
        # One reference more than there are: a list of them would be emptied when the interpreter ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
    if "onnxruntime" in sys.modules or "openvino" in sys.modules:
        _end_without_destructors()


def _end_without_destructors() -> None:
    """Let this process end before the destructors of libraries' globals: they wait for threads that are not here.

    ONNX Runtime's always do; OpenVINO's may, if one of its threads was still starting or ending during the fork.

    Handlers that are registered later than this still run.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc's
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
