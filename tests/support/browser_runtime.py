"""What runs models in a browser, as `make setup` has fetched it, for the servers of tests."""

from pathlib import Path

import pytest

from hf_gateway.engines.browser_runtime import RUNTIME

FETCHED = Path(__file__).resolve().parents[2] / "build" / "browser-runtime" / RUNTIME.name


def place_browser_runtime(home: Path) -> None:
    """Put the runtime where a server with this HF_GATEWAY_HOME looks for it; skips the test where it was not fetched."""
    if not FETCHED.is_dir():
        pytest.skip("the runtime for browsers is not here: run `make setup` where npm is")
    folder = home / "browser-runtime"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUNTIME.name).symlink_to(FETCHED, target_is_directory=True)
