"""Publishes with huggingface_hub in a child process, and ends it where a step does not get on.

The library has no limit in time of its own. Ended from outside it leaves nothing: a commit is all or nothing, and files that
were sent before one belong to no commit. The token goes over a pipe: the child has it neither in its arguments nor in its
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
"""Seconds that a step may take without anything getting on."""
SENDING_S = 30.0
"""The same while large files are sent: storage answers when it has written them."""
START_S = 60.0
"""Seconds for the child to start, which imports from a disk that may be slow."""
SLOWEST_BYTES_S = 50_000
"""What a step with the files in it gets more time for."""
LARGE_BYTES = 10_000_000
"""Files beyond are never in the commit itself."""
_WITH_FILES = frozenset({"committing", "reading the files"})
# Before the interpreter looks anywhere for a module: the working folder may have a json.py of its own (-I leaves it out).
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from hf_gateway.hub.upload_worker import main; main()"

Progress = Callable[[str, int, int], None]
"""Told the step, the bytes that were sent in it, and those that there are."""


class Upload:
    """One child process, which makes a repository and a commit. Use it as a context manager: leaving ends it.

    Args:
        endpoint: the Hub.
        secret: the token.
        progress: is told of each step, and of bytes.
        stop: set from another thread, it ends the process.
    """

    def __init__(
        self, endpoint: str, secret: Secret, progress: Progress | None = None, stop: threading.Event | None = None
    ) -> None:
        """Start nothing yet."""
        self._endpoint, self._secret = endpoint, secret
        self._progress = progress or (lambda *_: None)
        self._stop = stop or threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._complaints: deque[str] = deque(maxlen=20)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, whatever it is doing, and wait until it is gone."""
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
        """Make the repository, unless it is there."""
        self._do({"do": "create", "repo_id": repo_id, "private": private}, 0, 0)

    def commit(
        self, repo_id: str, files: tuple[AdapterFile, ...], folder: Path, parent: str | None, message: str
    ) -> str:
        """Send files in one commit, and return its id.

        Args:
            repo_id: the repository.
            files: what goes out.
            folder: where those lie that go out as they are.
            parent: the commit that it must follow.
            message: of the commit.
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
        """Have the child carry out an order. inline, total: bytes that go with a commit, and of all files."""
        step, sent, seen = "starting", 0, {"starting"}
        due = time.monotonic() + (START_S if self._process is None else STEP_S)
        self._write(order)
        while True:
            said = self._next(step, due)
            if said is None:
                raise self._worker_ended(step)
            if "step" in said:
                step = said["step"]
                self._progress(step, sent, total)
                # Tried again, a step gets no time again.
                if step in seen:
                    continue
                seen.add(step)
            elif "sent" in said:
                sent = min(sent + int(said["sent"]), total)
                self._progress(step, sent, total)
            elif "done" in said:
                return said["done"]
            else:
                raise self._meaning(said, step)
            allowed = SENDING_S if step == SENDING else STEP_S
            due = time.monotonic() + allowed + (inline / SLOWEST_BYTES_S if step in _WITH_FILES else 0.0)

    def _next(self, step: str, due: float) -> dict[str, Any] | None:
        """Wait for what the child says next; None where it has ended."""
        began = time.monotonic()
        while (left := due - time.monotonic()) > 0:
            if self._stop.is_set():
                raise PublishStopped(f"publishing was stopped while {step}", target=TARGET)
            with contextlib.suppress(queue.Empty):
                return self._said.get(timeout=min(left, 0.2))
        raise AttemptTimedOut(
            f"the Hub did not get on with {step} for {time.monotonic() - began:.0f} s, so publishing was ended there",
            target=TARGET,
        )

    def _write(self, order: Mapping[str, Any]) -> None:
        known = {"endpoint": self._endpoint, "token": self._secret.reveal()}
        # Without the working folder, which "" means: any file of it could pass for a library.
        lines = [] if self._process else [[str(Path(each).absolute()) for each in sys.path if each], known]
        process = self._process = self._process or self._start()
        # On another thread: a pipe that is full would hold this one for as long as the child does not read.
        text = "".join(json.dumps(each) + "\n" for each in (*lines, order))
        self._run(self._send, process, text)

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="hf-gateway-publish", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _start(self) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
        # Whatever the library would take from its own settings is for this Hub; its bars say what gets on, to nobody's terminal.
        environment |= {"HF_ENDPOINT": self._endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "0", "TQDM_POSITION": "-1"}
        if not is_hugging_face(self._endpoint):
            # Only Hugging Face's own Hub is known to have Xet's storage.
            environment["HF_HUB_DISABLE_XET"] = "1"
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-I", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends this one
        )
        self._run(self._listen, process)
        self._run(self._drain, process)
        return process

    def _send(self, process: "subprocess.Popen[str]", text: str) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended; what it said before says why
            process.stdin.write(text)
            process.stdin.flush()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)

    def _drain(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._complaints.append(line)

    def _worker_ended(self, step: str) -> GatewayError:
        assert self._process is not None
        code = self._process.wait()
        for thread in self._threads:
            thread.join()
        last = next((line.strip() for line in reversed(self._complaints) if line.strip()), "")
        said = f": {visible(self._secret.scrub(last))}" if last else ""
        return EngineFailed(f"the process that publishes ended while {step} (exit {code}){said}", target=TARGET)

    def _meaning(self, said: Mapping[str, Any], step: str) -> GatewayError:
        """Return the error that the child tells of."""
        if refused := said.get("refused"):
            body = base64.b64decode(refused["body"])
            found = classify(refused["status"], refused["headers"], body, target=TARGET)
            return found.restated(self._secret.scrub(found.message), found.retry_after)
        failed = said["failed"]
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
        return BadResponse(f"what came is no answer of a Hub, while {step} ({failed['type']}: {words})", target=TARGET)
