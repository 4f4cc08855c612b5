"""The environments that contenders run in: our own, and one for each set of peers whose pins collide with ours."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = "own"
PEERS = ("corpus", "fastembed", "frameworks", "litellm", "litellm-proxy")
"""Each is installed from `benchmarks/requirements-<name>.txt` into `build/bench-<name>`."""
INFINITY = "infinity"
"""The environment of the tests' server, which `make setup` makes."""
_INSTALL_TIMEOUT_S = 900

_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    # litellm would fetch a list of prices while it is imported.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "OPENVINO_TELEMETRY": "0",
    "PYTHONHASHSEED": "0",
}
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class NotRun(Exception):
    """A contender that cannot be measured; the message is the reason, in one line, without paths of this machine."""

    def __init__(self, reason: str) -> None:
        """Shorten the reason to a line of the table."""
        line = " ".join(reason.replace(str(ROOT), "…").replace(str(Path.home()), "~").split())
        super().__init__(line if len(line) <= 220 else f"{line[:219]}…")


class Environments:
    """Finds or makes environments, once a run; a failure is remembered and raised to each caller."""

    def __init__(self, *, peers: bool, home: Path) -> None:
        """peers: whether others than our own may be used; home: an empty folder, where libraries may keep things."""
        self._peers, self._home = peers, home
        self._failed: dict[str, NotRun] = {}
        self._making = threading.Lock()

    def python(self, name: str) -> str:
        """Return the path of an environment's interpreter. Raises NotRun."""
        if name == OWN:
            return sys.executable
        if not self._peers:
            raise NotRun("--no-peers")
        if name == INFINITY:
            python = ROOT / ".venv-infinity" / "bin" / "python"
            if not python.exists():
                raise NotRun("infinity-emb is not installed; make setup")
            return str(python)
        with self._making:
            if name in self._failed:
                raise self._failed[name]
            try:
                return str(_make_environment(name))
            except NotRun as failure:
                self._failed[name] = failure
                raise

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables of a contender's process: offline, no telemetry, no proxy, no key, an empty home."""
        dropped = (*_FOREIGN, *(name for name in os.environ if name.lower().endswith("_proxy")))
        kept = {name: value for name, value in os.environ.items() if name not in dropped and not _is_setting(name)}
        home = {"HF_HOME": str(self._home / "huggingface"), "HF_GATEWAY_HOME": str(self._home / "gateway")}
        return {**kept, **_QUIET, **home, **(more or {})}


def _is_setting(name: str) -> bool:
    return name.startswith(("HF_", "HUGGING", "OPENAI_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "OLLAMA_"))


def _make_environment(name: str) -> Path:
    wanted = ROOT / "benchmarks" / f"requirements-{name}.txt"
    folder = ROOT / "build" / f"bench-{name}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    content = wanted.read_text(encoding="utf-8")
    if ready.exists() and ready.read_text(encoding="utf-8") == content:
        return python
    print(f"  setting up build/{folder.name} …", flush=True)
    ready.unlink(missing_ok=True)
    install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*install, "--requirement", str(wanted)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise NotRun(f"installing requirements-{name}.txt took more than {_INSTALL_TIMEOUT_S} s") from None
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise NotRun(f"requirements-{name}.txt cannot be installed: {told[-1] if told else done.returncode}")
    ready.write_text(content, encoding="utf-8")
    return python
