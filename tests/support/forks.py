"""Runs a part of a test in a forked child, which may be interrupted, hang or die."""

import faulthandler
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0
"""For what takes milliseconds, on a machine that has much else to do; what hangs takes all of it."""


def in_child(work: Callable[[], Any]) -> Any:
    """Fork, and return what `work` gives in the child, or what it raises in words."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(PATIENCE_S - 5)  # where it hangs
        try:
            said = json.dumps(work())
        except BaseException as error:
            said = json.dumps(f"{type(error).__name__}: {error}")
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    try:
        ready, _, _ = select.select([ours], [], [], PATIENCE_S)
        if not ready:
            os.kill(child, signal.SIGKILL)
        with os.fdopen(ours, "rb", closefd=False) as pipe:
            said = pipe.read().decode()
    finally:
        os.close(ours)
        _, status = os.waitpid(child, 0)
    assert said, f"the child hung or died: {os.waitstatus_to_exitcode(status)}"
    return json.loads(said)
