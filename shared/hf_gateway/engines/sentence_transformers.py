"""sentence-transformers on torch: runs every model that it can load, and is the reference for the faster engines."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hf_gateway.engines import converted, cpus, refuse_static, trusts_remote_code
from hf_gateway.engines.agreement import MIN_HALF_COSINE, agreement, rows_of
from hf_gateway.engines.batches import batches_by_length
from hf_gateway.engines.choosing import OPTIONS, TorchPlan, installed, torch_plan
from hf_gateway.engines.fitting import tokenize_within
from hf_gateway.engines.forked import compute_guard, torch_computes
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.tensors import check_device, load_sentence_transformer
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.vectors import Vectors

__all__ = ["OPTIONS", "Engine"]

log = logger(__name__)

_SHORT_DTYPE_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Engine:
    """A loaded model. Thread-safe: calls are serialised, since a tokenizer of `tokenizers` must not be borrowed twice."""

    name = "sentence-transformers"

    def __init__(
        self, files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], *, revision: str | None = None
    ) -> None:
        """Load the model.

        Args:
            files: the model's files.
            space: vector space of the model, with its prompts.
            options: the target's options.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded.
            ConfigError: invalid options.
        """
        try:
            import sentence_transformers
            import torch
        except ImportError as error:
            raise EngineMissing(
                f"sentence-transformers is missing or broken here ({error}): pip install 'hf-gateway[torch]'"
            ) from None
        self._trusted = trusts_remote_code(files, options, revision)
        refuse_static(files)
        self._lock = fork_lock()
        self._process = os.getpid()
        self._rows = int(options["batch_size"]) if "batch_size" in options else None
        self._space = space
        self._files = files
        if (threads := cpus.restricted()) is not None and torch.get_num_threads() > threads:
            torch.set_num_threads(threads)  # for the whole process, which may use no more CPUs
        self._device = str(options.get("device") or sentence_transformers.util.get_device_name())
        check_device(self._device)
        self._plan = _plan(options.get("dtype"), self._device)
        self._model = self._load()

    @property
    def dimension(self) -> int | None:
        """Values per vector."""
        found = self._model.get_embedding_dimension()
        return int(found) if found else None

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return str(self._model.device)

    @property
    def precision(self) -> str:
        """Number type of its weights: fp32, bf16, fp16, or another as torch names it."""
        found = str(getattr(self._model, "dtype", "float32")).removeprefix("torch.")
        return _SHORT_DTYPE_NAMES.get(found, found)

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32. Raises ContextOverflow unless `truncate`, EngineFailed."""
        import numpy as np

        prompt = (self._space.query_prompt if request.role == "query" else self._space.document_prompt) or ""
        with self._lock:
            limit = self._model.max_seq_length
            limit = int(limit) if limit else None
            texts, found = tokenize_within(request.texts, prompt, limit, self._tokens, truncate=request.truncate)
            counts = [min(len(tokens), limit) if limit else len(tokens) for tokens in found]
            encode = self._model.encode_query if request.role == "query" else self._model.encode_document
            made: Any = np.empty((0, self.dimension or 0), "<f4")
            for places in batches_by_length(counts, self._plan.tokens, self._rows):
                rows = self._encode(encode, [texts[place] for place in places], prompt)
                if len(made) != len(texts):
                    made = np.empty((len(texts), rows.shape[1]), "<f4")
                made[places] = rows
        return EmbedAnswer(Vectors.from_bytes(made.tobytes(), made.shape[1]), Usage(sum(counts)))

    def _encode(self, encode: Any, texts: list[str], prompt: str) -> Any:
        try:
            with torch_computes(self._device, self._process):
                return encode(texts, prompt=prompt, batch_size=len(texts), show_progress_bar=False)
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

    def _load(self) -> Any:
        """Load the model in 16 bits if that was asked for or gives the vectors of 32 bits, else as its files say."""
        plan = self._plan
        if plan.forced is not None:
            return self._attentive(plan.forced)
        if plan.half is None:
            return self._load_model(None)
        import torch

        notes = converted.Notes(converted.identity(self._files))
        where = torch.cuda.get_device_name(self._device) if self._device.startswith("cuda") else cpus.signature()
        about = self.name, torch.__version__, where, plan.half, plan.attention or "padded"
        known = notes.read("same", *about)
        if known is None:
            full = self._load_model("float32")
            if type(full[0]).__name__ != "Transformer" or full[0].module_output_name != "token_embeddings":
                return self._load_model(None)
            reference = rows_of(lambda texts: self._encode(full.encode, texts, ""))
            try:
                halved = self._attentive(plan.half)
                cosine = agreement(reference, lambda texts: self._encode(halved.encode, texts, ""), MIN_HALF_COSINE)
            except EngineFailed as error:
                log.info(
                    "%s: %s runs in float32, since in %s %s", self.name, self._space.model, plan.half, error.message
                )
                notes.write("same", *about, cosine=0.0, why=error.message)
                return full
            notes.write("same", *about, cosine=cosine)
            return halved
        return self._attentive(plan.half) if known.get("cosine") else self._load_model("float32")

    def _attentive(self, dtype: str) -> Any:
        """Load with the plan's attention, or without it if the model does not support it."""
        if self._plan.attention is not None:
            try:
                return self._load_model(dtype, self._plan.attention)
            except EngineFailed:  # unsupported by many architectures, each with its own exception
                pass
        return self._load_model(dtype)

    def _load_model(self, dtype: str | None, attention: str | None = None) -> Any:
        arguments: dict[str, Any] = {"use_safetensors": True}
        if dtype is not None:
            arguments["dtype"] = dtype
        if attention is not None:
            arguments["attn_implementation"] = attention
        model = load_sentence_transformer(
            self._files.path, device=self._device, trust_remote_code=self._trusted, model_kwargs=arguments
        )
        if type(model[0]).__name__ == "Transformer":
            model[0].register_forward_hook(_in_float32)
        return model


def _in_float32(module: Any, arguments: Any, features: Any) -> None:  # noqa: ARG001 - torch's form of a hook
    """Forward hook: converts token vectors to float32, so that pooling, dense layers and normalisation use it."""
    tokens = features.get("token_embeddings")
    if tokens is not None and tokens.is_floating_point():
        features["token_embeddings"] = tokens.float()


def _plan(dtype: Any, device: str) -> TorchPlan:
    import torch

    if device.startswith("cuda"):
        flash = installed("flash_attn") and installed("flash_attn_2_cuda")
        return torch_plan(dtype, device, bf16=torch.cuda.is_bf16_supported(including_emulation=False), flash=flash)
    return torch_plan(dtype, device, bf16=cpus.has_bf16(), flash=False)
