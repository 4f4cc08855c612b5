"""Cross-encoders through sentence-transformers on torch: a score for each pair of a query and a document."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hf_gateway.engines import cpus, quiet_loggers, trusts_remote_code
from hf_gateway.engines.choosing import DTYPES
from hf_gateway.engines.forked import torch_computes
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.tensors import Loading, check_device, check_tensors, recorded_loads
from hf_gateway.errors import ContextOverflow, EngineFailed, EngineMissing, GatewayError
from hf_gateway.spaces.fingerprint import CANARIES
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.rerank import RerankAnswer, RerankRequest
from hf_gateway.values.usage import Usage

BATCH_PAIRS = 32
"""Pairs in one forward pass."""
_COUNTED_PAIRS = 16
"""Pairs that are tokenised at once to count their tokens; they are padded to the longest."""
MAX_CHARS_PER_TOKEN = 100
"""Upper bound, so that no more of a document is tokenised than could fit."""


class Engine:
    """A loaded model. Thread-safe: calls are serialised."""

    name = "sentence-transformers"

    def __init__(self, files: ModelFiles, options: Mapping[str, Any], *, revision: str | None = None) -> None:
        """Load the model.

        Args:
            files: the model's files.
            options: the target's options.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded, or does not give one score for a pair.
            ConfigError: invalid options.
        """
        try:
            import sentence_transformers
            import torch
        except ImportError as error:
            raise EngineMissing(
                f"sentence-transformers is missing or broken here ({error}): pip install 'hf-gateway[torch]'"
            ) from None
        trusted = trusts_remote_code(files, options, revision)
        self._lock = fork_lock()
        self._process = os.getpid()
        self._rows = int(options.get("batch_size") or BATCH_PAIRS)
        if (threads := cpus.restricted()) is not None and torch.get_num_threads() > threads:
            torch.set_num_threads(threads)  # for the whole process, which may use no more CPUs
        self._device = str(options.get("device") or sentence_transformers.util.get_device_name())
        check_device(self._device)
        self._identity = torch.nn.Identity()
        dtype = DTYPES.get(str(options.get("dtype")), "float32")
        try:
            with torch_computes(), quiet_loggers(), recorded_loads() as loadings:
                self._model: Any = sentence_transformers.CrossEncoder(
                    str(files.path),
                    local_files_only=True,
                    device=self._device,
                    trust_remote_code=trusted,
                    model_kwargs={"use_safetensors": True, "dtype": dtype},
                )
                _require_head(loadings, files)
                self._require_one_score(files)
                self._prompt = self._model.prompts.get(self._model.default_prompt_name)
                check_tensors(loadings, files.path, lambda: [self._predict([(each, each) for each in CANARIES])])
        except GatewayError:
            raise
        except Exception as error:  # loaders raise various exceptions
            raise EngineFailed(f"{files.path} cannot be loaded: {type(error).__name__}: {error}") from error

    @property
    def context(self) -> int | None:
        """Maximum tokens of a query with a document; None without a limit."""
        limit = self._model.max_seq_length
        return int(limit) if limit else None

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return str(self._model.device)

    def rerank(self, request: RerankRequest) -> RerankAnswer:
        """Return the logit of each document. Raises ContextOverflow, naming a document, unless `truncate`; EngineFailed."""
        with self._lock:
            limit = self.context
            reach = limit * MAX_CHARS_PER_TOKEN if limit else None
            pairs = [(request.query[:reach], document[:reach]) for document in request.documents]
            counts = self._count_tokens(pairs)
            if limit and not request.truncate:
                refuse_longer(request, counts, limit, reach)
            scores = self._predict(pairs)
        return RerankAnswer(
            [float(score) for score in scores],
            "logit",
            Usage(sum(min(count, limit) if limit else count for count in counts)),
        )

    def _require_one_score(self, files: ModelFiles) -> None:
        if (labels := self._model.num_labels) != 1:
            raise EngineFailed(
                f"{files.path} gives {labels} scores for a pair of texts, so it is a classifier, not a reranker "
                "(num_labels must be 1)"
            )
        # A language model's score is the difference of two tokens' logits, by default of "yes" and "no".
        yes, no = (getattr(self._model[-1], f"{name}_token_id", None) for name in ("true", "false"))
        if yes is not None and yes == no:
            raise EngineFailed(f"{files.path} is a language model without tokens for yes and no, so it cannot rerank")

    def _count_tokens(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Return the tokens of each pair, without truncation, with the model's prompt or template."""
        counts: list[int] = []
        whole = {"text": {"truncation": False, "verbose": False}}
        with torch_computes(self._device, self._process):
            for start in range(0, len(pairs), _COUNTED_PAIRS):
                part = list(pairs[start : start + _COUNTED_PAIRS])
                features = self._model.preprocess(part, prompt=self._prompt, processing_kwargs=whole)
                counts += features["attention_mask"].sum(dim=1).tolist()
        return counts

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> Any:
        try:
            with torch_computes(self._device, self._process):
                return self._model.predict(
                    list(pairs),
                    prompt=self._prompt,
                    batch_size=self._rows,
                    activation_fn=self._identity,
                    show_progress_bar=False,
                )
        except EngineFailed:
            raise
        except Exception as error:  # of torch, the tokenizer or the model
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error


def _require_head(loadings: Sequence[Loading], files: ModelFiles) -> None:
    """Raise EngineFailed for a network whose files have no weights behind its trunk, such as an embedding model."""
    for loading in loadings:
        trunk = f"{loading.model.base_model_prefix}."
        if head := sorted(name for name in loading.info["missing_keys"] if not name.startswith(trunk)):
            raise EngineFailed(
                f"{files.path} has no weights for scores ({head[0]!r} is missing in the files), so it is not a reranker"
            )


def refuse_longer(request: RerankRequest, counts: Sequence[int], limit: int, reach: int | None) -> None:
    """Raise ContextOverflow for the first document that is too long together with the query.

    Args:
        request: query and documents.
        counts: tokens of each pair.
        limit: maximum tokens of a pair.
        reach: characters of a text up to which its tokens were counted; None if all were.
    """
    for place, (document, count) in enumerate(zip(request.documents, counts, strict=True)):
        cut = reach is not None and max(len(document), len(request.query)) > reach
        if count > limit or cut:
            more = "more than " if cut else ""
            raise ContextOverflow(
                f"document {place} of {len(counts)} has {more}{count} tokens together with the query, but the model's limit is "
                f"{limit}; split it, or pass truncate=True to drop the rest",
                limit=limit,
                length=None if cut else count,
                place=place,
            )
