"""The original of a converted model: the same files loaded with sentence-transformers on torch, in float32."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_gateway.engines import trusts_remote_code
from hf_gateway.engines.forked import torch_computes
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.tensors import load_sentence_transformer
from hf_gateway.errors import EngineFailed
from hf_gateway.spaces.fingerprint import CANARIES, Fingerprint
from hf_gateway.values.vector_space import VectorSpace

UNLIMITED_TOKENS = 10**9
"""Some tokenizers write 10**30 for "no limit"."""


def torch_is_here() -> bool:
    """Return whether models can be converted on this machine."""
    return find_spec("torch") is not None and find_spec("sentence_transformers") is not None


class Original:
    """A model loaded with sentence-transformers."""

    def __init__(self, files: ModelFiles) -> None:
        """Load the model. Raises EngineFailed."""
        trusts_remote_code(files, {}, None)
        import torch

        self._model = load_sentence_transformer(
            files.path, device="cpu", model_kwargs={"use_safetensors": True, "dtype": torch.float32}
        )
        try:
            transformer, tokenizer = self._model[0], self._model.tokenizer
            self.network: Any = transformer.auto_model.eval()
            self.tokenizer: str = tokenizer.backend_tokenizer.to_str()
        except Exception as error:  # other kinds of modules lack one of these attributes
            raise EngineFailed(f"{files.path} cannot be converted: {type(error).__name__}: {error}") from error
        if tokenizer.padding_side != "right":
            raise EngineFailed("its tokenizer pads on the left")
        limit = self._model.max_seq_length
        self.max_tokens: int | None = int(limit) if limit and limit < UNLIMITED_TOKENS else None

    def reference(self, space: VectorSpace) -> Fingerprint:
        """Return the vectors of the canaries, as documents without a prompt. Raises EngineFailed."""
        try:
            with torch_computes():
                rows = self._model.encode(list(CANARIES), prompt="", show_progress_bar=False)
        except Exception as error:  # of torch, the tokenizer or the model
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error
        return Fingerprint(space, "files", "sentence-transformers", {"document": tuple(map(tuple, rows.tolist()))})

    def traceable(self) -> tuple[Any, dict[str, Any]]:
        """Return the transformer as a module from token ids and mask to the tokens' vectors, and an example of both."""
        import torch

        class Tokens(torch.nn.Module):
            def __init__(self, network: Any) -> None:
                super().__init__()
                self.network = network

            def forward(self, input_ids: Any, attention_mask: Any) -> Any:
                return self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

        # Texts of several lengths, so that tracing treats no part of the mask as constant.
        ids = torch.arange(5, 26).reshape(3, 7) % max(6, int(self.network.config.vocab_size))
        mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5])
        return Tokens(self.network), {"input_ids": ids, "attention_mask": mask}


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Disable gradients, and torch's warnings about what it cannot trace: the canaries show whether the result is right."""
    import torch

    remarks = logging.getLogger("torch.onnx")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        remarks.setLevel(level)


def write_tokenizer(original: Original, folder: Path) -> None:
    """Write the tokenizer into an entry as transformers uses it, with the changes from the model's settings.

    Args:
        original: the loaded model.
        folder: folder of the entry.
    """
    (folder / "tokenizer.json").write_text(original.tokenizer, encoding="utf-8")
