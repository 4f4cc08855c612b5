"""Recognises static models, which are a table of token vectors, by the files that describe them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Read = Callable[[str], Any]
"""Returns the JSON of a model's file by its path among the files; None if the file does not exist."""

MODEL2VEC = "model2vec"
"""`model_type` of the library of that name."""
MODEL2VEC_MAX_TOKENS = 512
"""Tokens of a text that model2vec reads if config.json has no max_length."""
_MODULE = "StaticEmbedding"
"""sentence-transformers' module."""


@dataclass(frozen=True)
class StaticFiles:
    """What describes a static model."""

    folder: str
    """Folder of the table and the tokenizer among the model's files, "" for the top one."""
    config: Mapping[str, Any]
    """The config.json at the top; empty without one."""
    modules: tuple[tuple[str, str], ...]
    """Name and folder of each of sentence-transformers' modules after the table."""
    model2vec: bool
    """Whether there is no modules.json, so that model2vec reads the files and sentence-transformers does not."""

    @property
    def max_tokens(self) -> int | None:
        """Maximum tokens of a text by the files that are read here; None without a limit."""
        if not self.model2vec:
            return None
        length = self.config.get("max_length", MODEL2VEC_MAX_TOKENS)
        return length if type(length) is int and length > 0 else None

    @property
    def normalized(self) -> bool:
        """Whether vectors have length 1."""
        if self.model2vec:
            return bool(self.config.get("normalize"))
        return any(kind == "Normalize" for kind, _ in self.modules)

    @property
    def precision(self) -> str:
        """Number type of the table, as a vector space names it."""
        return "int8" if self.config.get("embedding_dtype") == "int8" else "float"


def read_static(read: Read) -> StaticFiles | None:
    """Return what describes a static model; None for any other model.

    modules.json decides where there is one: such a model has the vectors of sentence-transformers, as servers over it give them.
    """
    modules = read("modules.json")
    if modules is None:
        config = _config(read)
        return StaticFiles("", config, (), model2vec=True) if config.get("model_type") == MODEL2VEC else None
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        return None
    (kind, folder), *after = ((_name(str(each.get("type", ""))), str(each.get("path", ""))) for each in modules)
    return StaticFiles(folder, _config(read), tuple(after), model2vec=False) if kind == _MODULE else None


def _config(read: Read) -> Mapping[str, Any]:
    found = read("config.json")
    return found if isinstance(found, dict) else {}


def _name(kind: str) -> str:
    """Return the name of sentence-transformers' module; of custom code its whole path, which is not such a name."""
    return kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind
