"""What holds for every test: no key, no home, no network but loopback, and nothing of the machine's own settings."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.servers.openai import FakeOpenAI
from tests.support.late import run_late_imports

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what it puts into the background: the programs that the tests interrupt would inherit it, and go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
"""Real traffic that other projects recorded; beside the repository, and not everywhere."""

collect_ignore = ["deploy", "release"]
"""`make deploy` and `make release-check` run them, each with an environment of its own."""

_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACEHUB_API_TOKEN",
    "HUGGINGFACE_API_KEY",
    "HF_TOKEN_PATH",
    "HF_ENDPOINT",
    "HF_MODEL_ID",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HUGGINGFACE_BASE_URL",
    "HUGGINGFACE_REQUIRE_API_KEY",
    "OLLAMA_HOST",
    "OPENAI_API_KEY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)


@pytest.fixture(scope="session", autouse=True)
def _nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the Hub's cache into an empty folder before huggingface_hub reads its environment, once, when imported."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home / "huggingface"))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        for name in [
            *_VARIABLES,
            *(name for name in os.environ if name.startswith("HF_GATEWAY_") and "_TEST_" not in name),
        ]:
            patch.delenv(name, raising=False)
        # The guard's canaries are requests, too: tests that count requests do without, tests of the guard ask for it.
        patch.setenv("HF_GATEWAY_CHECK_SPACE", "0")
        # Converting a model for the engines takes seconds: once a run, for all its processes.
        basis = tmp_path_factory.getbasetemp()
        shared = basis.parent if os.environ.get("PYTEST_XDIST_WORKER") else basis
        patch.setenv("HF_GATEWAY_CONVERTED", str(shared / "converted"))
        # Now, since the test that imports it first may have variables of its own set, which would hold for all after it.
        import_module("huggingface_hub.constants")
        yield home


@pytest.fixture(scope="module", autouse=True)
def _home_of_a_file(tmp_path_factory: pytest.TempPathFactory, _nobodys_home: Path) -> Iterator[None]:
    """Give what is made once for a file a home of its own: a key in the user's, or in that of another file, closes a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_GATEWAY_HOME", str(tmp_path_factory.mktemp("file") / "home"))
        yield


@pytest.fixture(scope="module", autouse=True)
def _late_imports(request: pytest.FixtureRequest, _nobodys_home: Path) -> None:
    """Import the heavy libraries of a file before its first test, and after the environment is set."""
    run_late_imports(request.module.__name__)


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start in an empty folder, and with every notice unsaid."""
    from hf_gateway.storage import notices

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path.with_name(f"{tmp_path.name}-home")))
    monkeypatch.setattr(notices, "_noticed", set())
    if (hub_files := sys.modules.get("hf_gateway.engines.hub_files")) is not None:
        # Ports are used again, and a Hub that was away on one is another Hub's by then.
        monkeypatch.setattr(hub_files, "_absences", {})


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that calls anybody but this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])  # type: ignore[index]
            if not host.startswith("127.") and host not in ("::1", "localhost"):
                raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings; skips where it is missing."""
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings lie beside the repository only on the project's own machines")
    return RECORDINGS


@pytest.fixture
def primary() -> Iterator[FakeOpenAI]:
    """The first server of a chain, which takes any model's name."""
    with FakeOpenAI(models=None) as server:
        yield server


@pytest.fixture
def backup() -> Iterator[FakeOpenAI]:
    """The second server of a chain."""
    with FakeOpenAI(models=None) as server:
        yield server
