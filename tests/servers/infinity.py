"""infinity-emb, a real third-party server, from a virtual environment of its own (`infinity-requirements.txt`)."""

import os
from pathlib import Path

from tests.servers.child import Child

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def interpreter() -> Path | None:
    """Return the Python that has infinity-emb: HF_GATEWAY_TEST_INFINITY_PYTHON, or `.venv-infinity`; None without."""
    named = os.environ.get("HF_GATEWAY_TEST_INFINITY_PYTHON")
    python = Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-infinity" / "bin" / "python"
    return python if python.exists() else None


class Infinity(Child):
    """infinity serving the model in a folder, on a free port; entering starts it, leaving ends its process group.

    `url` is the origin, the API is under `prefix`: `{url}/v1/embeddings`, `{url}/v1/models`; `{url}/health` is not.
    `usage` counts characters unless `count_tokens`.
    """

    def __init__(
        self,
        model: Path,
        *,
        python: Path | None = None,
        name: str = "all-MiniLM-L6-v2",
        prefix: str = "/v1",
        api_key: str | None = None,
        count_tokens: bool = True,
        timeout: float = 120.0,
    ) -> None:
        """Take what to serve; `python` defaults to `interpreter()`, `timeout` is for the start, in seconds."""
        found = python or interpreter()
        if found is None:
            raise RuntimeError("no Python with infinity-emb: set HF_GATEWAY_TEST_INFINITY_PYTHON")
        command = [str(found), "-m", "infinity_emb.cli", "v2", "--model-id", str(model)]
        command += ["--served-model-name", name, "--url-prefix", prefix]
        command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32"]
        # BetterTransformer wants optimum; warming up takes ten of fifteen seconds.
        command += ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]
        command += ["--lengths-via-tokenize"] if count_tokens else []
        command += ["--api-key", api_key] if api_key else []
        super().__init__(command, _ENVIRONMENT, timeout=timeout)
