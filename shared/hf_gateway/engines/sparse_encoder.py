"""sentence-transformers' SparseEncoder on torch: SPLADE and the other sparse models that it can load."""

import os
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from hf_gateway.engines import cpus, trusts_remote_code
from hf_gateway.engines.batches import batches_by_length
from hf_gateway.engines.choosing import DTYPES
from hf_gateway.engines.fitting import tokenize_within
from hf_gateway.engines.forked import compute_guard, torch_computes
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.sparse_files import is_dense
from hf_gateway.engines.tensors import check_device, load_sparse_encoder
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.sparse import SparseAnswer, SparseVectors
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace

BATCH_TOKENS = 1024
"""Tokens of a batch: each becomes a row as wide as the vocabulary, 125 MB of float32 in all for 30,522 words."""


class Engine:
    """A loaded sparse model. Thread-safe: calls are serialised, since a tokenizer of `tokenizers` must not be borrowed twice."""

    name = "sentence-transformers"

    def __init__(
        self, files: ModelFiles, options: Mapping[str, Any], *, space: VectorSpace, revision: str | None = None
    ) -> None:
        """Load the model, in float32 unless the option `dtype` names another type.

        Args:
            files: the model's files.
            options: the target's options.
            space: vector space of the model, with its prompts.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded, or is not a sparse one.
            ConfigError: invalid options.
        """
        try:
            import sentence_transformers
            import torch
        except ImportError as error:
            raise EngineMissing(
                f"sentence-transformers is missing or broken here ({error}): pip install 'hf-gateway[torch]'"
            ) from None
        if is_dense(files):
            raise EngineFailed(f"{space.model} is a model for dense vectors, not for sparse ones; use task='embedding'")
        trusted = trusts_remote_code(files, options, revision)
        if (threads := cpus.restricted()) is not None and torch.get_num_threads() > threads:
            torch.set_num_threads(threads)  # for the whole process, which may use no more CPUs
        self._lock = fork_lock()
        self._process = os.getpid()
        self._rows = int(options["batch_size"]) if "batch_size" in options else None
        self._space = space
        self._device = str(options.get("device") or sentence_transformers.util.get_device_name())
        check_device(self._device)
        dtype = options.get("dtype")
        self._model = load_sparse_encoder(
            files.path,
            device=self._device,
            trust_remote_code=trusted,
            model_kwargs={
                "use_safetensors": True,
                "dtype": "float32" if dtype in (None, "auto") else DTYPES[str(dtype)],
            },
        )

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return str(self._model.device)

    def embed(self, request: EmbedRequest) -> SparseAnswer:
        """Embed n texts of one role. Raises ContextOverflow unless `truncate`, EngineFailed."""
        prompt = (self._space.query_prompt if request.role == "query" else self._space.document_prompt) or ""
        with self._lock:
            limit = int(self._model.max_seq_length or 0) or None
            texts, found = tokenize_within(request.texts, prompt, limit, self._tokens, truncate=request.truncate)
            counts = [min(len(tokens), limit) if limit else len(tokens) for tokens in found]
            encode = self._model.encode_query if request.role == "query" else self._model.encode_document
            order: list[int] = []
            parts: list[SparseVectors] = []
            for places in batches_by_length(counts, BATCH_TOKENS, self._rows):
                parts.append(self._encode(encode, [texts[place] for place in places], prompt))
                order += places
        places_of = {place: position for position, place in enumerate(order)}
        vectors = SparseVectors.concat(parts).take([places_of[place] for place in range(len(texts))])
        return SparseAnswer(vectors, Usage(sum(counts)))

    def _encode(self, encode: Any, texts: list[str], prompt: str) -> SparseVectors:
        try:
            with torch_computes(self._device, self._process):
                rows = encode(
                    texts,
                    prompt=prompt,
                    batch_size=len(texts),
                    show_progress_bar=False,
                    convert_to_sparse_tensor=False,
                )
                return _sparse(rows.float().cpu())
        except EngineFailed:
            raise
        except Exception as error:  # of torch, the tokenizer or the model
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        with compute_guard.using("tokenizers"):
            encoded = self._model.tokenizer(
                list(texts), truncation=False, padding=False, return_attention_mask=False, verbose=False
            )
        found: list[list[int]] = encoded["input_ids"]
        return found


def _sparse(rows: Any) -> SparseVectors:
    """Return the entries of a dense (n, vocabulary) tensor that are not 0."""
    import numpy as np

    dense = rows.numpy()
    places, indices = np.nonzero(dense)  # by row, and ascending within each
    ends = np.cumsum(np.bincount(places, minlength=len(dense)))
    found, values, offsets = array("I"), array("f"), array("Q", [0])
    found.frombytes(indices.astype(np.uint32).tobytes())
    values.frombytes(dense[places, indices].astype(np.float32).tobytes())
    offsets.extend(ends.tolist())
    return SparseVectors(found, values, offsets)
