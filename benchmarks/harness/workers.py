"""The parent's side of a contender's process."""

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.environments import ROOT, Environments, NotRun

START_TIMEOUT_S = 180.0
ASK_TIMEOUT_S = 180.0


class Worker:
    """One contender in its process; `ask` times something there."""

    def __init__(
        self,
        environments: Environments,
        case: str,
        environment: str,
        arguments: Mapping[str, Any],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and wait until its library is loaded. Raises NotRun."""
        python = environments.python(environment)
        self._ended: NotRun | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.contenders.worker", case],
            cwd=ROOT,
            env=environments.variables(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self._exchange(dict(arguments), START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Have something done; returns what the worker tells, `seconds` first of all. Raises NotRun."""
        return self._exchange({"do": do, **more}, ASK_TIMEOUT_S)

    def seconds(self, do: str, **more: Any) -> float:
        """Have something timed."""
        return float(self.ask(do, **more)["seconds"])

    def can(self, call: str) -> bool:
        """Return whether the contender has this call."""
        return bool(self.ask("has", call=call)["has"])

    def _exchange(self, message: dict[str, Any], limit: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._ended is not None:
            raise self._ended
        rang = threading.Event()

        def ring() -> None:
            rang.set()
            self._process.kill()

        alarm = threading.Timer(limit, ring)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if not line:
            how = f"it took more than {limit:.0f} s" if rang.is_set() else f"its process ended{self._last_words()}"
            self._ended = NotRun(how)
            raise self._ended
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotRun(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        told = [line for line in lines if line.strip()]
        return f": {told[-1]}" if told else ""

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
