"""`transformers serve`, a real third-party server of OpenAI's chat form, from this environment."""

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.child import Child


def interpreter() -> Path | None:
    """Return this Python if it has what `transformers[serving]` installs; None without."""
    needed = ("transformers", "torch", "fastapi", "uvicorn", "openai")
    return Path(sys.executable) if all(find_spec(name) for name in needed) else None


class TransformersServe(Child):
    """Serves the model in a folder, which its requests have to name as it was given here: `str(model)`.

    The API is under `{url}/v1`. Streams have no `[DONE]`, and a tool call in one comes whole; `response_format` and
    `tool_choice` are ignored; a malformed message is a 500 with bare text.
    """

    def __init__(self, model: Path, *, timeout: float = 120.0) -> None:
        """Take what to serve; `timeout` is for the start, in seconds."""
        python = interpreter()
        if python is None:
            raise RuntimeError("transformers[serving] is not installed")
        self._home = tempfile.TemporaryDirectory()
        # The server lists what lies in the Hub's cache, and fails where there is none.
        Path(self._home.name, "hub").mkdir()
        self.model = str(model)
        command = [str(python), "-m", "transformers.cli.transformers", "serve", self.model, "--device", "cpu"]
        environment = {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": self._home.name,
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        super().__init__(command, environment, timeout=timeout)

    def __enter__(self) -> Self:
        """Start it and wait until it is healthy."""
        try:
            return super().__enter__()
        except BaseException:
            self._home.cleanup()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and with it its own cache."""
        super().__exit__(kind, error, trace)
        self._home.cleanup()
