"""Reads the vector space of a sparse model from the files that sentence-transformers' SparseEncoder reads."""

import re
from typing import Any

from hf_gateway.engines import sources
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import ConfigError
from hf_gateway.values.vector_space import VectorSpace, canonical

SPLADE = "splade"
"""The pooling of SPLADE models: for each word of the vocabulary the largest weight that any token gives it."""


def space_of(files: ModelFiles, model: str, revision: str | None = None) -> VectorSpace:
    """Read the space of a model's sparse vectors; None for unknown fields.

    Args:
        files: the model's files.
        model: Hub id.
        revision: revision of the files.
    """
    config = _object(files, "config.json")
    saved = _object(files, "config_sentence_transformers.json")
    prompts = saved.get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    size = config.get("vocab_size")
    return VectorSpace(
        canonical(model),
        revision,
        dimension=size if type(size) is int and size > 0 else None,
        pooling=_pooling(files),
        query_prompt=str(prompts.get("query") or ""),
        document_prompt=str(prompts.get("document") or ""),
        precision="float",
    )


def is_dense(files: ModelFiles) -> bool:
    """Return whether the files are those of a model for dense vectors, which SparseEncoder would convert without a word."""
    names = [name for name, _ in _modules(files)]
    return "Pooling" in names and not _SPARSE_MODULES.intersection(names)


_SPARSE_MODULES = frozenset({"SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder", "Router"})


def _pooling(files: ModelFiles) -> str:
    for name, folder in _modules(files):
        if name == "SpladePooling":
            return _splade(_object(files, f"{folder}/config.json"))
        if name in _SPARSE_MODULES:
            return name.lower()
    return SPLADE  # a plain masked language model, which SparseEncoder pools so


def _modules(files: ModelFiles) -> list[tuple[str, str]]:
    """Return the class and the folder of each module; an empty list without modules.json. Raises ConfigError."""
    found = sources.read_json(files.path / "modules.json")
    modules = [
        (str(module.get("type")).rpartition(".")[2], str(module.get("path", "")))
        for module in (found if isinstance(found, list) else [])
        if isinstance(module, dict)
    ]
    for _, folder in modules:
        if folder and not _INNER_PATH.fullmatch(folder):
            raise ConfigError(f"modules.json has a path outside of the model's folder: {folder[:80]!r}")
    return modules


_INNER_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def _splade(config: dict[str, Any]) -> str:
    """Return the pooling's name with what differs from that of text-embeddings-inference."""
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    parts = [part for part, usual in ((strategy, "max"), (activation, "relu")) if part != usual]
    return "-".join([SPLADE, *map(str, parts)])


def _object(files: ModelFiles, name: str) -> dict[str, Any]:
    found = sources.read_json(files.path / name)
    return found if isinstance(found, dict) else {}
