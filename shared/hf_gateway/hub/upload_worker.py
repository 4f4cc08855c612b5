"""Child process in which huggingface_hub creates repositories and commits; its parent, `hub.upload`, ends it in time.

The library waits as long as a server does, and retries for half a minute. So it runs where it can be ended at any
moment without leaving anything behind. It reports its steps, progress and outcome to the parent, one line of JSON
each. Orders and token are read from stdin; at its end, the process exits.
"""

import base64
import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

MAX_BODY_BYTES = 65_536
"""Bytes of a refusal's body that are reported to the parent."""
TRIES = 2
"""Attempts for one request, where the library would make six."""
_STEPS = (
    ("/api/repos/create", "making the repository"),
    ("/api/validate-yaml", "checking the card"),
    ("/preupload/", "asking how the files are to be sent"),
    ("/objects/batch", "asking where the large files go"),
    ("/objects/verify", "having the large files checked"),
    ("/commit/", "committing"),
    ("/api/", "asking about the repository"),
)
SENDING = "sending the large files"
"""Step of a request to the storage."""
_NO_ANSWER = (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError)
"""Exceptions of the library for a response that is not the Hub's, such as a login page."""

Report = Callable[[dict[str, Any]], None]


class _RetriesExhausted(Exception):
    """Stops the library from retrying. `response` is the last response, None without one."""

    def __init__(self, response: Any = None) -> None:
        super().__init__("retries exhausted")
        self.response = response


def main() -> NoReturn:
    """Process the orders on stdin, one line each, until its end."""
    # What libraries print must not get into the reports.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def report(message: dict[str, Any]) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(message) + "\n")
            out.flush()

    worker: _Worker | None = None
    for line in _lines():
        order = json.loads(line)
        if worker is None:
            report({"step": "starting"})
            worker = _Worker(order["endpoint"], order["token"], report)
            continue
        report(worker.outcome(order))
    os._exit(0)


def _lines() -> Iterator[str]:
    """Yield the lines of stdin as they arrive, and exit the process at its end, whatever it is doing."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the parent has ended or has no more orders

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


class _RepeatCounter(threading.local):
    """Counts repetitions of a thread's last request, which are retries."""

    request = ""
    times = 0

    def count(self, request: str) -> int:
        """Record a request, and return how often it was made in a row."""
        self.times = self.times + 1 if request == self.request else 1
        self.request = request
        return self.times


class _Worker:
    """Runs huggingface_hub and reports its progress."""

    def __init__(self, endpoint: str, token: str, report: Report) -> None:
        from huggingface_hub import HfApi

        self._report = report
        self._last = _RepeatCounter()
        self._api = HfApi(endpoint=endpoint, token=token)
        self._watch_requests()
        self._watch_progress()

    def outcome(self, order: dict[str, Any]) -> dict[str, Any]:
        """Process one order; return the result, or a description of the library's exception."""
        try:
            if order["do"] == "create":
                self._api.create_repo(order["repo_id"], private=order["private"], exist_ok=True)
                return {"done": None}
            return {"done": self._commit(order)}
        except Exception as error:  # noqa: BLE001 - the process boundary: the parent raises the error
            return _describe_error(error)

    def _commit(self, order: dict[str, Any]) -> str:
        from huggingface_hub import CommitOperationAdd

        self._report({"step": "reading the files"})
        operations = []
        for file in order["files"]:
            content = file.get("content")
            source: Any = (
                base64.b64decode(content) if content is not None else str(Path(order["folder"]) / file["path"])
            )
            operations.append(CommitOperationAdd(file["path"], source))
        done = self._api.create_commit(
            order["repo_id"], operations, commit_message=order["message"], parent_commit=order["parent"]
        )
        return str(done.oid)

    def _watch_requests(self) -> None:
        from huggingface_hub import get_session, set_client_factory
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

        usual = get_session().event_hooks["request"]

        def make() -> Any:
            hooks: Any = {"request": [*usual, self._on_request], "response": [self._on_response]}
            return httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=None)

        set_client_factory(make)

    def _on_request(self, request: Any) -> None:
        path = request.url.path
        step = next((words for part, words in _STEPS if part in path), SENDING)
        if self._last.count(f"{request.method} {request.url}") > TRIES:
            raise _RetriesExhausted
        self._report({"step": step})

    def _on_response(self, response: Any) -> None:
        status = response.status_code
        # The library waits for a rate limit as long as the server asks for.
        if status == 429 or ((status >= 500 or status == 408) and self._last.times >= TRIES):
            response.read()
            raise _RetriesExhausted(response)
        if 300 <= status < 400:
            self._last.times = 0  # a redirect is not a retry, even to the same URL; the library limits redirects

    def _watch_progress(self) -> None:
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

        usual = tqdm.update

        def update(bar: Any, n: float | None = 1) -> Any:
            if n:
                self._report({"sent": int(n)})
            return usual(bar, n)

        tqdm.update = update  # the library reports progress only through its bars


def _describe_error(error: BaseException) -> dict[str, Any]:
    """Return a description of an exception for the parent."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _describe_error(error.__cause__)  # the library wraps it to name the file that it was sending
    response = getattr(error, "response", None) if isinstance(error, (HfHubHTTPError, _RetriesExhausted)) else None
    if response is not None:
        try:
            body = response.content[:MAX_BODY_BYTES]
        except Exception:  # noqa: BLE001 - the stream was not read; the class depends on the HTTP library
            body = b""
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
        return {
            "refused": {"status": response.status_code, "headers": headers, "body": base64.b64encode(body).decode()}
        }
    kind = "other"
    if isinstance(error, httpx.TimeoutException):
        kind = "timeout"
    elif isinstance(error, (httpx.TransportError, _RetriesExhausted, ConnectionError)):
        kind = "connection"
    elif isinstance(error, (httpx.RequestError, *_NO_ANSWER)):
        kind = "no answer"  # redirects in a circle, a body in another encoding than declared, a page instead of JSON
    elif isinstance(error, ValueError):
        kind = "value"
    elif isinstance(error, OSError):
        kind = "file"
    return {"failed": {"kind": kind, "type": type(error).__name__, "message": str(error)}}
