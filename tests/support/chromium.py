"""A real browser for tests: Chromium without a window, spoken to over its DevTools protocol.

    with chromium() as browser, browser.page("http://127.0.0.1:8080/") as page:
        page.evaluate("document.title")

`browser.endpoint` is what other tools attach to, such as playwright-core's `chromium.connectOverCDP(endpoint)` in Node.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.late import COLLECTED

if COLLECTED:
    from websockets.sync.client import ClientConnection, connect

TIMEOUT_S = 120.0
"""How long Chromium may take to start, or to answer one command, on a loaded machine."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--password-store=basic",
    "--remote-debugging-port=0",
    "--remote-debugging-address=127.0.0.1",
    # No name but loopback's is ever looked up; `hosts` adds names of the test's own.
    "--host-resolver-rules={hosts}MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


def chromium_program() -> str | None:
    """Return the path of Chromium: HF_GATEWAY_TEST_CHROMIUM, or one of its usual names; None where there is none."""
    named = os.environ.get("HF_GATEWAY_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@contextlib.contextmanager
def chromium(*flags: str, hosts: tuple[str, ...] = ()) -> Iterator["Chromium"]:
    """Start Chromium with an empty profile, and end it with all its processes; skips the test where it is not installed.

    Args:
        flags: more flags of its command line.
        hosts: names that lead to 127.0.0.1.
    """
    program = chromium_program()
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium fonts-dejavu-core)")
    names = "".join(f"MAP {name} 127.0.0.1, " for name in hosts)
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        command = [program, *(flag.replace("{hosts}", names) for flag in _FLAGS), f"--user-data-dir={folder}/profile"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")
        process = subprocess.Popen(
            [*command, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder},
            start_new_session=True,
        )
        try:
            endpoint, websocket = _address(process)
            with connect(websocket, proxy=None, max_size=None, open_timeout=TIMEOUT_S) as connection:
                yield Chromium(endpoint, websocket, connection)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(TIMEOUT_S)
            assert process.stderr is not None
            process.stderr.close()


def _address(process: "subprocess.Popen[bytes]") -> tuple[str, str]:
    """Wait until Chromium says where it listens; returns its HTTP and its WebSocket address."""
    assert process.stderr is not None
    written = []
    mark = b"DevTools listening on "
    for line in process.stderr:
        written.append(line)
        if line.startswith(mark):
            url = line.removeprefix(mark).strip().decode()
            return "http://" + url.removeprefix("ws://").partition("/")[0], url
    raise RuntimeError("Chromium did not start:\n" + b"".join(written[-20:]).decode(errors="replace"))


class Chromium:
    """A browser that runs; its pages share one empty profile."""

    def __init__(self, endpoint: str, websocket: str, connection: "ClientConnection") -> None:
        """Take the connection to it.

        Args:
            endpoint: where its DevTools answer over HTTP.
            websocket: where they answer over WebSocket.
            connection: a connection to that.
        """
        self.endpoint = endpoint
        """Where other tools attach: an HTTP address."""
        self.websocket = websocket
        """The same as a WebSocket's address."""
        self._connection = connection
        self._last = 0
        self._events: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def page(self, url: str) -> Iterator["Page"]:
        """Open a page in a tab, wait until it is loaded, and close it at the end.

        Args:
            url: its address.
        """
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable", session)
        page.go(url)
        try:
            yield page
        finally:
            self.command("Target.closeTarget", targetId=target)

    def command(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol; returns its result. Raises RuntimeError if it is refused.

        Args:
            method: its name.
            session: of the page that it is for; None for the browser.
            parameters: its parameters.
        """
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while (found := self._receive()).get("id") != number:
            self._events.append(found)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        result: dict[str, Any] = found["result"]
        return result

    def events(self, session: str, method: str) -> list[dict[str, Any]]:
        """Return the parameters of a page's events so far.

        Args:
            session: of the page.
            method: the name of the event.
        """
        self.command("Browser.getVersion")
        return [each["params"] for each in self._events if (each["method"], each.get("sessionId")) == (method, session)]

    def wait_for(self, session: str, method: str, since: int) -> None:
        """Wait for the next event of a kind.

        Args:
            session: of the page.
            method: the name of the event.
            since: how many of them there were before.
        """
        while sum((each["method"], each.get("sessionId")) == (method, session) for each in self._events) <= since:
            self._events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._connection.recv(TIMEOUT_S))
        return found


class Page:
    """A page in a tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        """Take the session of a tab."""
        self._browser, self._session = browser, session

    def go(self, url: str) -> None:
        """Open an address, and wait until the page is loaded. Raises RuntimeError if it cannot be."""
        before = len(self._browser.events(self._session, "Page.loadEventFired"))
        found = self.command("Page.navigate", url=url)
        if "errorText" in found:
            raise RuntimeError(f"{url}: {found['errorText']}")
        self._browser.wait_for(self._session, "Page.loadEventFired", before)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol for this page; returns its result.

        Args:
            method: its name.
            parameters: its parameters.
        """
        return self._browser.command(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Run JavaScript in the page, waiting for its promise; returns the value. Raises RuntimeError with what it threw."""
        found = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def events(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of this page's events so far, such as `Network.requestWillBeSent`."""
        return self._browser.events(self._session, method)

    def requested(self) -> list[str]:
        """Return the addresses that the page has asked for."""
        return [each["request"]["url"] for each in self.events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Return the errors that the browser has logged for the page: of scripts, of the network, of its policy."""
        logged = [each["entry"] for each in self.events("Log.entryAdded")]
        thrown = [each["exceptionDetails"]["text"] for each in self.events("Runtime.exceptionThrown")]
        return [each["text"] for each in logged if each["level"] == "error"] + thrown

    def screenshot(self, file: Path) -> None:
        """Write what the page looks like into a PNG file."""
        import base64

        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
