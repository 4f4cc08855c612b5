"""A chat in a forked child while the parent answers: `python -m tests.support.forked_chat`."""

import threading
from typing import Any

from tests.support import tiny
from tests.support.forks import PATIENCE_S, in_child


def release_at_the_fork(steps: Any) -> None:
    """Let the parent's answer go on once somebody forks."""
    from hf_gateway.engines.forked import compute_guard

    with compute_guard.changed:
        assert compute_guard.changed.wait_for(lambda: compute_guard.forks, PATIENCE_S)
    steps.allow(10**9)


def main() -> None:
    """Fork in the middle of an answer; the child's own answer has to be the same."""
    engine = tiny.loaded()
    messages = [{"role": "user", "content": "Count to three."}]
    expected = tiny.ask(engine, messages).text
    with tiny.counted_steps() as steps:
        steps.limit = 1
        begun = engine.start(tiny.request(messages))
        reader = threading.Thread(target=begun.read, args=(PATIENCE_S,))
        reader.start()
        steps.wait_for(1)
        releaser = threading.Thread(target=release_at_the_fork, args=(steps,))
        releaser.start()
        assert in_child(lambda: tiny.ask(engine, messages).text) == expected
        releaser.join()
        reader.join()
        begun.close()
        assert begun.join(PATIENCE_S)


if __name__ == "__main__":
    main()
