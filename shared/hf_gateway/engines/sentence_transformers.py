"""sentence-transformers on torch: serves every model that it can load, and is the yardstick for the faster engines."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from hf_gateway.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.engines import quiet, trusts_code
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import ContextOverflow, EngineFailed, EngineMissing
from hf_gateway.space import VectorSpace
from hf_gateway.usage import Usage
from hf_gateway.vectors import Vectors

OPTIONS = frozenset({"device", "dtype", "batch_size", "trust_remote_code"})

_CHARACTERS_A_TOKEN = 100
"""No token stands for more: WordPiece makes one [UNK] of a word beyond 100 characters, and BPE pieces are shorter."""


class Engine:
    """One loaded model. Safe for threads: calls queue up, since a tokenizer of `tokenizers` may not be borrowed twice."""

    name = "sentence-transformers"

    def __init__(
        self, files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], *, revision: str | None = None
    ) -> None:
        """Load the model. Raises EngineMissing, EngineFailed, ConfigError."""
        try:
            import sentence_transformers
        except ImportError as error:
            raise EngineMissing(
                f"sentence-transformers is broken here ({error}): pip install 'hf-gateway[torch]'"
            ) from None
        trusted = trusts_code(files, options, revision)
        model_arguments: dict[str, Any] = {"use_safetensors": True}
        if "dtype" in options:
            model_arguments["dtype"] = options["dtype"]
        self._lock = threading.Lock()
        self._batch_size = int(options.get("batch_size", 32))
        self._space = space
        try:
            with quiet():
                self._model = sentence_transformers.SentenceTransformer(
                    str(files.path),
                    device=options.get("device"),
                    trust_remote_code=trusted,
                    local_files_only=True,
                    model_kwargs=model_arguments,
                )
        except Exception as error:  # a loader fails in as many ways as there are formats
            raise EngineFailed(f"{files.path} cannot be loaded: {type(error).__name__}: {error}") from error

    @property
    def dimension(self) -> int | None:
        """Numbers a vector."""
        found = self._model.get_embedding_dimension()
        return int(found) if found else None

    @property
    def device(self) -> str:
        """Where it runs, in torch's words."""
        return str(self._model.device)

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32. Raises ContextOverflow unless `truncate`, EngineFailed."""
        prompt = self._space.query_prompt if request.role == "query" else self._space.document_prompt
        with self._lock:
            texts, tokens = self._fitted(request, prompt or "")
            encode = self._model.encode_query if request.role == "query" else self._model.encode_document
            try:
                rows = encode(texts, prompt=prompt, batch_size=self._batch_size, show_progress_bar=False)
            except Exception as error:  # torch's, the tokenizer's, or the model's own
                raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error
        flat = rows.astype("<f4", copy=False)
        return EmbedAnswer(Vectors.from_bytes(flat.tobytes(), flat.shape[1]), Usage(tokens))

    def _fitted(self, request: EmbedRequest, prompt: str) -> tuple[list[str], int]:
        """Count tokens; refuse a text that is too long, or leave off of it what would be cut anyway."""
        limit = self._model.max_seq_length
        texts = list(request.texts)
        if not limit:
            return texts, sum(self._count([prompt + text for text in texts]))
        reach = int(limit) * _CHARACTERS_A_TOKEN
        starts = [prompt + text[:reach] for text in texts]
        counts = self._count(starts)
        for index, count in enumerate(counts):
            if count <= limit and len(texts[index]) > reach:
                count = counts[index] = self._count([prompt + texts[index]])[0]
            if count <= limit:
                continue
            if not request.truncate:
                more = "more than " if len(texts[index]) > reach else ""
                raise ContextOverflow(
                    f"text {index} of {len(texts)} has {more}{count} tokens, and the model takes {limit}; "
                    "split it, or pass truncate=True to lose what is beyond",
                    limit=int(limit),
                )
            texts[index] = texts[index][:reach]
        return texts, sum(min(count, int(limit)) for count in counts)

    def _count(self, texts: Sequence[str]) -> list[int]:
        encoded = self._model.tokenizer(
            list(texts), truncation=False, padding=False, return_attention_mask=False, verbose=False
        )
        return [len(ids) for ids in encoded["input_ids"]]
