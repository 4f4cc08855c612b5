"""The page in Chromium as a person uses it: clicks go through playwright, to the browser that `tests.support.chromium` starts.

After each test the page has asked no other host for anything, and the browser has complained of nothing but statuses that the
test expects. `Views.check` looks at a state: axe in light and dark, at two widths, and nothing wider than the window.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.page_build import ROOT, WORK
from tests.support.gateway_server import START_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

AXE = WORK / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = ROOT / "docs" / "screenshots"
STATES = ROOT / "build" / "page-states"
"""Where every state that is looked at is kept as pictures, if HF_GATEWAY_TEST_SCREENSHOTS is set."""
WIDE, NARROW = 1200, 390
HEIGHT = 850
PATIENCE_MS = 1000 * float(os.environ.get("HF_GATEWAY_TEST_PATIENCE") or START_S)


class Views:
    """A page of one server, in a browser's profile of its own."""

    def __init__(self, browser: "Browser", url: str) -> None:
        """Open it."""
        self.url = url
        self._context = browser.new_context(
            viewport={"width": WIDE, "height": HEIGHT}, color_scheme="light", accept_downloads=True
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.sent: list[str] = []
        self.states: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.go()

    def _note(self, address: str) -> None:
        self.sent.append(address)
        if not address.startswith((self.url, "data:", "blob:")):
            self.foreign.append(address)

    def go(self, view: str = "") -> None:
        """Open the page, or one of its views by its address."""
        self.page.goto(f"{self.url}/ui{f'/#/{view}' if view else ''}")

    def show(self, view: str) -> None:
        """Choose a view in the navigation."""
        self.page.get_by_role("navigation", name="Views").get_by_role("link", name=view).click()

    def button(self, name: str, **options: Any) -> "Locator":
        """Return the button of a name."""
        return self.page.get_by_role("button", name=name, **options)

    def text(self, words: str, **options: Any) -> "Locator":
        """Return the first element with a text, after waiting until it is shown."""
        found = self.page.get_by_text(words, **options).first
        found.wait_for()
        return found

    def sign_in(self, credential: str) -> None:
        """Sign in by a key or a token."""
        self.page.get_by_label("Key, or token of your identity provider").fill(credential)
        self.button("Sign in").click()

    def check(self, state: str) -> None:
        """Look at what is shown now. `state` names it where it is at fault."""
        self.states.append(state)
        for scheme in ("light", "dark"):
            for width in (WIDE, NARROW):
                self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                self.page.set_viewport_size({"width": width, "height": HEIGHT})
                overflow = self.page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                assert overflow <= 0, f"{state}, {scheme}, {width}: {overflow} pixels too wide"
                if os.environ.get("HF_GATEWAY_TEST_SCREENSHOTS"):
                    STATES.mkdir(parents=True, exist_ok=True)
                    name = f"{state.lower().replace(', ', '-').replace(' ', '-')}-{scheme}-{width}.png"
                    self._save(STATES / name, self.page.screenshot(full_page=True))
                if AXE.is_file():
                    self._run_axe(f"{state}, {scheme}, {width}")
        self.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
        self.page.set_viewport_size({"width": WIDE, "height": HEIGHT})

    def _run_axe(self, where: str) -> None:
        # By the debugger's own door, which the page's policy does not concern.
        if not self.page.evaluate("typeof axe === 'object'"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((all) => all.violations)")
        faults = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
        assert not faults, f"{where}: {faults}"

    def picture(self, name: str, *, dark: bool = False, width: int = WIDE) -> None:
        """Write what is shown into docs/screenshots, if HF_GATEWAY_TEST_SCREENSHOTS is set."""
        if os.environ.get("HF_GATEWAY_TEST_SCREENSHOTS"):
            PICTURES.mkdir(parents=True, exist_ok=True)
            self.page.emulate_media(color_scheme="dark" if dark else "light")
            self.page.set_viewport_size({"width": width, "height": HEIGHT})
            self._save(PICTURES / f"{name}.png", self.page.screenshot())
            self.page.emulate_media(color_scheme="light")
            self.page.set_viewport_size({"width": WIDE, "height": HEIGHT})

    def _save(self, path: Path, png: bytes) -> None:
        import io

        from PIL import Image

        # Few colours, so that the repository stays small.
        Image.open(io.BytesIO(png)).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)

    def close(self, *expected: str) -> None:
        """Close it; fails for anything that is not as it should be.

        expected: parts of what the browser complains of, such as the status of a request that the test makes fail.
        """
        self._context.close()
        assert self.foreign == []
        unexpected = [each for each in self.complaints if not any(part in each for part in expected)]
        assert unexpected == []
        assert not [each for each in self.sent if "hfg_" in each], "a key in an address"


@contextlib.contextmanager
def browser_for_views(*flags: str) -> Iterator["Browser"]:
    """Start Chromium for playwright; skips where one of the two is not installed. `flags` are more of its command line."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from tests.support.chromium import chromium
    from tests.support.late import run_late_imports

    run_late_imports("tests.support.chromium")
    with chromium(*flags) as running, api.sync_playwright() as driver:
        browser = driver.chromium.connect_over_cdp(running.endpoint)
        yield browser
        browser.close()


def needs_axe() -> None:
    """Skip a test where axe-core is not installed."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: run `make setup` where npm is")


def picture_bytes(folder: Path) -> Path:
    """Write a small PNG; returns its path."""
    import base64

    path = folder / "picture.png"
    path.write_bytes(
        base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
        )
    )
    return path
