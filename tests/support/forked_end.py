"""A forked child that embeds and leaves by `sys.exit`, as `python -m tests.support.forked_end MODEL ENGINE`."""

import faulthandler
import os
import signal
import sys

from tests.support.forks import PATIENCE_S


def main() -> None:
    """Embed, fork, embed in the child, and wait for its end."""
    from hf_gateway import Gateway, Target

    model, engine = sys.argv[1:]
    gateway = Gateway(model, [Target("local", options={"engine": engine})])
    expected = gateway.embed(["a text"]).vectors.tolist()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(PATIENCE_S - 5)  # where it hangs
        signal.alarm(int(PATIENCE_S))
        found = gateway.embed(["a text"]).vectors.tolist()
        sys.exit(0 if max(abs(a - b) for a, b in zip(found[0], expected[0], strict=True)) < 1e-5 else 3)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) != 0)


if __name__ == "__main__":
    main()
