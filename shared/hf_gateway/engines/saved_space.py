"""Reads the vector space of a model from the files that sentence-transformers saves beside its weights."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.static_files import Read, read_static
from hf_gateway.errors import ConfigError
from hf_gateway.values.vector_space import VectorSpace, canonical

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Pooling settings of older models; the results of those that are set are concatenated in this order."""
TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Possible file names for the settings of a Transformer module."""


def space_of(files: ModelFiles, model: str, revision: str | None = None) -> VectorSpace:
    """Read the vector space from the files that sentence-transformers reads; None for unknown fields.

    Args:
        files: the model's files.
        model: Hub id.
        revision: revision of the files.
    """
    return read_space(lambda name: read_json(files.path / name), model, revision)


def read_space(read: Read, model: str, revision: str | None = None, *, cut: bool = True) -> VectorSpace:
    """Read the vector space from files in any location.

    Args:
        read: returns the JSON of a file.
        model: Hub id.
        revision: revision of the files.
        cut: whether to read the maximum length too, which needs another file or two.

    Raises:
        ConfigError: a file is invalid, or names a path outside of the model's folder.
    """
    static = read_static(read)
    kinds, read = _modules(read("modules.json")), _objects(read)
    if static is not None and static.model2vec:
        # Its hidden_dim stays what it was where the table was cut to fewer values.
        return VectorSpace(
            canonical(model),
            revision,
            pooling="mean",
            normalized=static.normalized,
            query_prompt="",
            document_prompt="",
            max_tokens=static.max_tokens,
            precision=static.precision,
        )
    if kinds is None:
        # Without modules.json sentence-transformers uses mean pooling, except for causal models.
        config = read("config.json") or {}
        named = config.get("architectures")
        causal = isinstance(named, list) and any(str(name).endswith("ForCausalLM") for name in named)
        return VectorSpace(
            canonical(model),
            revision,
            dimension=config.get("hidden_size"),
            pooling="lasttoken" if causal else "mean",
            normalized=False,
            query_prompt="",
            document_prompt="",
            max_tokens=_max_tokens(read, "") if cut else None,
            precision="float",
        )
    pooling = read(_safe_path(kinds["Pooling"], "config.json")) if "Pooling" in kinds else None
    dense = read(_safe_path(kinds["Dense"], "config.json")) if "Dense" in kinds else None
    saved = read("config_sentence_transformers.json") or {}
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise ConfigError("config_sentence_transformers.json: its prompts are not a mapping of names to texts")
    if "Router" in kinds:
        # Each role has its own modules in such a model; those outside of the router apply to both.
        return VectorSpace(
            canonical(model),
            revision,
            normalized=True if "Normalize" in kinds else None,
            query_prompt=prompts.get("query", ""),
            document_prompt=_document_prompt(prompts),
            precision="float",
        )
    dimension = (pooling or {}).get("embedding_dimension") or (pooling or {}).get("word_embedding_dimension")
    if isinstance(dimension, int) and not isinstance(dimension, bool):
        dimension *= len(poolings(pooling)) or 1  # concatenated
    dimension = (dense or {}).get("out_features") or dimension or (read("config.json") or {}).get("hidden_size")
    kept = saved.get("truncate_dim")
    is_cut = type(kept) is int and isinstance(dimension, int) and 0 < kept < dimension
    return VectorSpace(
        canonical(model),
        revision,
        dimension=kept if is_cut else dimension,
        pooling="mean" if static else "+".join(poolings(pooling)) or None,
        normalized="Normalize" in kinds and not is_cut,
        query_prompt=prompts.get("query", ""),
        document_prompt=_document_prompt(prompts),
        max_tokens=_max_tokens(read, kinds.get("Transformer", "")) if cut and not static else None,
        precision=static.precision if static else "float",
    )


def _modules(data: Any) -> Mapping[str, str] | None:
    """Return the folder of each kind of module, None without modules.json. Raises ConfigError."""
    if data is None:
        return None
    if not isinstance(data, list):
        raise ConfigError("modules.json is not a list")
    found = {}
    for module in data:
        kind = module.get("type") if isinstance(module, dict) else None
        folder = module.get("path", "") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise ConfigError(f"modules.json has an entry without a type and a path: {str(module)[:80]}")
        if folder.startswith(("/", "\\")) or ":" in folder or ".." in re.split(r"[/\\]", folder):
            raise ConfigError(f"modules.json has a path outside of the model's folder: {folder[:80]!r}")
        found[kind.rpartition(".")[2]] = folder
    return found


def _objects(read: Read) -> Read:
    """Return a reader that accepts objects only. Raises ConfigError for other JSON."""

    def read_object(name: str) -> Any:
        found = read(name)
        if found is not None and not isinstance(found, dict):
            raise ConfigError(f"{name} is not an object")
        return found

    return read_object


def _document_prompt(prompts: dict[str, str]) -> str:
    return next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")


def poolings(config: Mapping[str, Any] | None) -> list[str]:
    """Return the pooling modes, whose results are concatenated."""
    mode = (config or {}).get("pooling_mode")
    if isinstance(mode, str):
        return [mode]
    if isinstance(mode, list):
        return [str(each) for each in mode]
    return [name for flag, name in POOLING_FLAGS.items() if (config or {}).get(flag)]


def _safe_path(folder: str, name: str) -> str:
    return str(PurePosixPath(folder) / name)


def _max_tokens(read: Read, transformer: str) -> int | None:
    for name in TRANSFORMER_FILES:
        saved = read(_safe_path(transformer, name)) or {}
        length = saved.get("max_seq_length")
        if isinstance(length, int) and not isinstance(length, bool):
            return length
    tokenizer = read(_safe_path(transformer, "tokenizer_config.json")) or {}
    config = read("config.json") or {}
    limits = [
        limit
        for limit in (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
    ]
    # Some tokenizers write 10**30 for "no limit".
    return min((limit for limit in limits if limit < 10**9), default=None)
