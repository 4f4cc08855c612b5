"""A contender's process: `python -m benchmarks.contenders.worker module:function`, JSON lines in and out.

The first line holds the contender's arguments and is answered by `{"ready": true}` or `{"error": ...}`; each further one
names what to `do`, and is answered by `{"seconds": ...}` or `{"error": ...}`. It ends when its input does.
"""

import importlib
import json
import os
import sys
import warnings
from typing import Any

from benchmarks.contenders.calls import Timed


def main(case: str) -> None:
    """Serve until the input ends."""
    # Libraries print; what they print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    module, _, function = case.partition(":")
    timed: Timed | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if timed is None:
                made = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)
                timed = Timed(made(**asked))
                answer({"ready": True})
            else:
                answer(timed.carry_out(**asked))
        except BaseException as error:  # reported in one line of the table
            answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
            if not isinstance(error, Exception):
                raise


if __name__ == "__main__":
    main(sys.argv[1])
