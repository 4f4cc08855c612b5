"""Publishes with huggingface_hub in a child process, which is ended if a step makes no progress.

The library has no time limits. Ending the process leaves nothing behind: a commit is atomic, and files uploaded
before it do not belong to it. The token is sent over a pipe: the child has it neither in its arguments nor in its
environment.
"""

import base64
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from hf_gateway.errors import (
    AttemptTimedOut,
    BadResponse,
    ConnectFailed,
    EngineFailed,
    GatewayError,
    visible,
)
from hf_gateway.hub.adapter import AdapterFile
from hf_gateway.hub.errors import HubArgumentError, PublishStopped
from hf_gateway.hub.upload_worker import SENDING
from hf_gateway.keys.credentials import TOKEN_VARIABLES, is_hugging_face
from hf_gateway.values.secret import Secret
from hf_gateway.wire.classify import classify
from hf_gateway.wire.hub_models import TARGET

STEP_S = 15.0
"""Seconds for a step without any progress."""
SENDING_S = 30.0
"""Seconds while large files are sent: the storage answers after it has written them."""
START_S = 60.0
"""Seconds for the child to start, whose imports may come from a slow disk."""
MIN_BYTES_PER_S = 50_000
"""Bytes per second by which the time for a step with the files' content is extended."""
LARGE_BYTES = 10_000_000
"""Size above which a file is never part of the commit request itself."""
_WITH_FILES = frozenset({"committing", "reading the files"})
# Runs before the interpreter looks for any module: the working folder may have its own json.py (-I leaves it out).
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from hf_gateway.hub.upload_worker import main; main()"

Progress = Callable[[str, int, int], None]
"""Called with the step, the bytes sent in it, and the bytes in total."""


class Upload:
    """A child process that creates a repository and a commit. A context manager: leaving it ends the process.

    Args:
        endpoint: base URL of the Hub.
        secret: the token.
        progress: called for each step and for bytes sent.
        stop: set in another thread to end the process.
    """

    def __init__(
        self, endpoint: str, secret: Secret, progress: Progress | None = None, stop: threading.Event | None = None
    ) -> None:
        """Set the Hub and the token; nothing is started yet."""
        self._endpoint, self._secret = endpoint, secret
        self._progress = progress or (lambda *_: None)
        self._stop = stop or threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stderr_lines: deque[str] = deque(maxlen=20)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Return the upload."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def create(self, repo_id: str, *, private: bool) -> None:
        """Create the repository, unless it exists.

        Args:
            repo_id: the repository.
            private: whether a new repository is private.
        """
        self._do({"do": "create", "repo_id": repo_id, "private": private}, 0, 0)

    def commit(
        self, repo_id: str, files: tuple[AdapterFile, ...], folder: Path, parent: str | None, message: str
    ) -> str:
        """Publish files in one commit, and return its id.

        Args:
            repo_id: the repository.
            files: the files.
            folder: folder of the files that are published unchanged.
            parent: commit that the new one has to follow.
            message: message of the commit.
        """
        listed = [
            {"path": file.path}
            | ({"content": base64.b64encode(file.content).decode()} if file.content is not None else {})
            for file in files
        ]
        order = {
            "do": "commit",
            "repo_id": repo_id,
            "files": listed,
            "folder": str(folder.absolute()),
            "parent": parent,
            "message": message,
        }
        inline = sum(min(file.size, LARGE_BYTES) for file in files)
        return str(self._do(order, inline, sum(file.size for file in files)))

    def _do(self, order: Mapping[str, Any], inline: int, total: int) -> Any:
        """Have the child process an order; `inline` and `total` are the bytes in the commit request and of all files."""
        step, sent, seen = "starting", 0, {"starting"}
        due = time.monotonic() + (START_S if self._process is None else STEP_S)
        self._write(order)
        while True:
            report = self._next(step, due)
            if report is None:
                raise self._worker_ended(step)
            if "step" in report:
                step = report["step"]
                self._progress(step, sent, total)
                # A repeated step does not extend the time.
                if step in seen:
                    continue
                seen.add(step)
            elif "sent" in report:
                sent = min(sent + int(report["sent"]), total)
                self._progress(step, sent, total)
            elif "done" in report:
                return report["done"]
            else:
                raise self._meaning(report, step)
            allowed = SENDING_S if step == SENDING else STEP_S
            due = time.monotonic() + allowed + (inline / MIN_BYTES_PER_S if step in _WITH_FILES else 0.0)

    def _next(self, step: str, due: float) -> dict[str, Any] | None:
        """Wait for the child's next report; None if it has ended."""
        began = time.monotonic()
        while (left := due - time.monotonic()) > 0:
            if self._stop.is_set():
                raise PublishStopped(f"publishing was stopped while {step}", target=TARGET)
            with contextlib.suppress(queue.Empty):
                return self._reports.get(timeout=min(left, 0.2))
        raise AttemptTimedOut(
            f"{step} made no progress for {time.monotonic() - began:.0f} s, so publishing was ended",
            target=TARGET,
        )

    def _write(self, order: Mapping[str, Any]) -> None:
        hub = {"endpoint": self._endpoint, "token": self._secret.reveal()}
        # Without the working folder, which "" means: any file in it could pose as a library.
        lines = [] if self._process else [[str(Path(each).absolute()) for each in sys.path if each], hub]
        process = self._process = self._process or self._start()
        # In another thread: a full pipe would block this one until the child reads.
        text = "".join(json.dumps(each) + "\n" for each in (*lines, order))
        self._run(self._send, process, text)

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="hf-gateway-publish", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _start(self) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
        # The library's own settings apply to this Hub; its progress bars are read for progress, and not shown.
        environment |= {"HF_ENDPOINT": self._endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "0", "TQDM_POSITION": "-1"}
        if not is_hugging_face(self._endpoint):
            # Only Hugging Face's own Hub is known to have Xet's storage.
            environment["HF_HUB_DISABLE_XET"] = "1"
        process = subprocess.Popen(  # noqa: S603 - this interpreter with fixed arguments
            [sys.executable, "-I", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
        )
        self._run(self._listen, process)
        self._run(self._drain, process)
        return process

    def _send(self, process: "subprocess.Popen[str]", text: str) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the child has ended; its last report says why
            process.stdin.write(text)
            process.stdin.flush()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._reports.put(json.loads(line))
        self._reports.put(None)

    def _drain(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._stderr_lines.append(line)

    def _worker_ended(self, step: str) -> GatewayError:
        assert self._process is not None
        code = self._process.wait()
        for thread in self._threads:
            thread.join()
        last = next((line.strip() for line in reversed(self._stderr_lines) if line.strip()), "")
        detail = f": {visible(self._secret.scrub(last))}" if last else ""
        return EngineFailed(f"the publishing process ended while {step} (exit {code}){detail}", target=TARGET)

    def _meaning(self, report: Mapping[str, Any], step: str) -> GatewayError:
        """Return the error that a report of the child describes."""
        if refused := report.get("refused"):
            body = base64.b64decode(refused["body"])
            found = classify(refused["status"], refused["headers"], body, target=TARGET)
            return found.restated(self._secret.scrub(found.message), found.retry_after)
        failed = report["failed"]
        words = visible(" ".join(self._secret.scrub(failed["message"]).split()))[:300]
        match failed["kind"]:
            case "timeout":
                return AttemptTimedOut(f"the Hub did not answer in time while {step} ({failed['type']})", target=TARGET)
            case "connection":
                return ConnectFailed(f"the connection to the Hub broke while {step} ({failed['type']})", target=TARGET)
            case "value":
                return HubArgumentError(words, target=TARGET)
            case "file":
                return HubArgumentError(f"a file cannot be read: {words}", target=TARGET)
        return BadResponse(f"the answer is not one of a Hub, while {step} ({failed['type']}: {words})", target=TARGET)
