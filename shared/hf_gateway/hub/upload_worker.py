"""The child process in which huggingface_hub makes repositories and commits; `hub.upload` is its parent, and ends it in time.

That library waits as long as a server does, and tries again for half a minute. So it runs where it can be ended at any moment
and leave nothing: the parent is told, a line of JSON each, which step it is at, what gets on, and the outcome. Work and token
come over stdin; when that ends, so does the process.
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
"""Of a refusal's body that the parent is told."""
TRIES = 2
"""At one request, where the library would try six times."""
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
"""What a request to the storage means."""
_NO_ANSWER = (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError)
"""What the library raises where it takes something for an answer that is none, such as a login page."""

Tell = Callable[[dict[str, Any]], None]


class _GivenUp(Exception):
    """The library would try again."""

    def __init__(self, response: Any = None) -> None:
        """response: the last one, None where none came."""
        super().__init__("tried in vain")
        self.response = response


def main() -> NoReturn:
    """Do what comes over stdin, a line each; end with it."""
    # Whatever the libraries print is no answer of ours.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(said: dict[str, Any]) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(said) + "\n")
            out.flush()

    worker: _Worker | None = None
    for line in _lines():
        order = json.loads(line)
        if worker is None:
            tell({"step": "starting"})
            worker = _Worker(order["endpoint"], order["token"], tell)
            continue
        tell(worker.outcome(order))
    os._exit(0)


def _lines() -> Iterator[str]:
    """Give the lines of stdin as they come, and end the process with them, whatever it is doing."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the parent is gone, or wants no more

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


class _RepeatCounter(threading.local):
    """The last request of a thread; one that follows as it was is another try."""

    request = ""
    times = 0

    def count(self, request: str) -> int:
        """Note a request, and return how often it was made in a row."""
        self.times = self.times + 1 if request == self.request else 1
        self.request = request
        return self.times


class _Worker:
    """huggingface_hub, watched."""

    def __init__(self, endpoint: str, token: str, tell: Tell) -> None:
        from huggingface_hub import HfApi

        self._tell = tell
        self._last = _RepeatCounter()
        self._api = HfApi(endpoint=endpoint, token=token)
        self._watch_requests()
        self._watch_progress()

    def outcome(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; an exception of the library is what it means."""
        try:
            if order["do"] == "create":
                self._api.create_repo(order["repo_id"], private=order["private"], exist_ok=True)
                return {"done": None}
            return {"done": self._commit(order)}
        except Exception as error:  # noqa: BLE001 - the border of the process: the parent raises what it means
            return _describe_error(error)

    def _commit(self, order: dict[str, Any]) -> str:
        from huggingface_hub import CommitOperationAdd

        self._tell({"step": "reading the files"})
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
            raise _GivenUp
        self._tell({"step": step})

    def _on_response(self, response: Any) -> None:
        status = response.status_code
        # How long a full rate limit is waited out, the library leaves to the server.
        if status == 429 or ((status >= 500 or status == 408) and self._last.times >= TRIES):
            response.read()
            raise _GivenUp(response)
        if 300 <= status < 400:
            self._last.times = 0  # where it leads to is no other try, be it the same place; the library counts these

    def _watch_progress(self) -> None:
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

        usual = tqdm.update

        def update(bar: Any, n: float | None = 1) -> Any:
            if n:
                self._tell({"sent": int(n)})
            return usual(bar, n)

        tqdm.update = update  # its bars are the only word of what gets on


def _describe_error(error: BaseException) -> dict[str, Any]:
    """Return what an exception means, for the parent."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _describe_error(error.__cause__)  # how the library says which file it was sending
    response = getattr(error, "response", None) if isinstance(error, (HfHubHTTPError, _GivenUp)) else None
    if response is not None:
        try:
            body = response.content[:MAX_BODY_BYTES]
        except Exception:  # noqa: BLE001 - of a stream that was not read; its class belongs to either HTTP library
            body = b""
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
        return {
            "refused": {"status": response.status_code, "headers": headers, "body": base64.b64encode(body).decode()}
        }
    kind = "other"
    if isinstance(error, httpx.TimeoutException):
        kind = "timeout"
    elif isinstance(error, (httpx.TransportError, _GivenUp, ConnectionError)):
        kind = "connection"
    elif isinstance(error, (httpx.RequestError, *_NO_ANSWER)):
        kind = "no answer"  # redirects in a circle, a body in another encoding than it names, a page instead of JSON
    elif isinstance(error, ValueError):
        kind = "value"
    elif isinstance(error, OSError):
        kind = "file"
    return {"failed": {"kind": kind, "type": type(error).__name__, "message": str(error)}}
