"""Writes the tables of docs/migrate.md: each argument of other libraries' classes beside what to write here.

`python -m tests.migration_page` reads the arguments from the installed sources into tests/data/incumbent_arguments.json, and
makes the tables from that file and `hf_gateway.settings.foreign_arguments`. tests/settings/test_foreign_arguments.py compares
both.
"""

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_gateway.settings.foreign_arguments import hint_for
from tests.config_pages import END, ROOT, cell

PAGE = ROOT / "docs" / "migrate.md"
BEGIN = "<!-- made by python -m tests.migration_page -->\n"
ARGUMENTS = ROOT / "tests" / "data" / "incumbent_arguments.json"
LAID_OVER = ROOT / "build" / "hub-1.33"
"""Where `make setup` puts packages that require an older huggingface_hub."""
LANGCHAIN, LLAMAINDEX = "langchain_hf_gateway", "llamaindex_hf_gateway"


@dataclass(frozen=True)
class Incumbent:
    """A class of another library, and the class here that takes its place."""

    name: str
    """Name of the class."""
    package: str
    """The distribution that has it."""
    file: str
    """Its source below a folder of packages."""
    ours: str
    """Module and name of the class here."""
    base: str | None = None
    """A base class in the same file, whose arguments it has, too."""

    def source(self) -> Path | None:
        """Return the installed source, or None where it is not installed."""
        folders = [*map(Path, sys.path), LAID_OVER]
        return next((folder / self.file for folder in folders if (folder / self.file).is_file()), None)

    def our_class(self) -> Any:
        module, _, name = self.ours.rpartition(".")
        return getattr(import_module(module), name)

    def accepted(self) -> set[str]:
        """Return the arguments that the class here has, LlamaIndex's two names of a model among them."""
        names = {"model"} if self.ours.startswith(LANGCHAIN) else {"model", "model_name"}
        return names | set(self.our_class().model_fields)


INCUMBENTS = (
    Incumbent(
        "HuggingFaceEmbeddings",
        "langchain-huggingface",
        "langchain_huggingface/embeddings/huggingface.py",
        f"{LANGCHAIN}.HFGatewayEmbeddings",
    ),
    Incumbent(
        "HuggingFaceEndpointEmbeddings",
        "langchain-huggingface",
        "langchain_huggingface/embeddings/huggingface_endpoint.py",
        f"{LANGCHAIN}.HFGatewayEmbeddings",
    ),
    Incumbent(
        "ChatHuggingFace",
        "langchain-huggingface",
        "langchain_huggingface/chat_models/huggingface.py",
        f"{LANGCHAIN}.ChatHFGateway",
    ),
    Incumbent(
        "HuggingFaceEndpoint",
        "langchain-huggingface",
        "langchain_huggingface/llms/huggingface_endpoint.py",
        f"{LANGCHAIN}.ChatHFGateway",
    ),
    Incumbent(
        "OllamaEmbeddings", "langchain-ollama", "langchain_ollama/embeddings.py", f"{LANGCHAIN}.HFGatewayEmbeddings"
    ),
    Incumbent(
        "ChatOpenAI",
        "langchain-openai",
        "langchain_openai/chat_models/base.py",
        f"{LANGCHAIN}.ChatHFGateway",
        "BaseChatOpenAI",
    ),
    Incumbent(
        "OpenAIEmbeddings",
        "langchain-openai",
        "langchain_openai/embeddings/base.py",
        f"{LANGCHAIN}.HFGatewayEmbeddings",
    ),
    Incumbent(
        "HuggingFaceEmbedding",
        "llama-index-embeddings-huggingface",
        "llama_index/embeddings/huggingface/base.py",
        f"{LLAMAINDEX}.HFGatewayEmbedding",
    ),
    Incumbent(
        "HuggingFaceInferenceAPI",
        "llama-index-llms-huggingface-api",
        "llama_index/llms/huggingface_api/base.py",
        f"{LLAMAINDEX}.HFGatewayLLM",
    ),
    Incumbent(
        "TextEmbeddingsInference",
        "llama-index-embeddings-text-embeddings-inference",
        "llama_index/embeddings/text_embeddings_inference/base.py",
        f"{LLAMAINDEX}.HFGatewayEmbedding",
    ),
    Incumbent(
        "OllamaEmbedding",
        "llama-index-embeddings-ollama",
        "llama_index/embeddings/ollama/base.py",
        f"{LLAMAINDEX}.HFGatewayEmbedding",
    ),
    Incumbent(
        "OpenAILikeEmbedding",
        "llama-index-embeddings-openai-like",
        "llama_index/embeddings/openai_like/base.py",
        f"{LLAMAINDEX}.HFGatewayEmbedding",
    ),
    Incumbent("Ollama", "llama-index-llms-ollama", "llama_index/llms/ollama/base.py", f"{LLAMAINDEX}.HFGatewayLLM"),
)


def arguments_in(source: Path, name: str) -> list[str]:
    """Return the arguments of a class: its public fields with their aliases, and what its constructor names.

    Args:
        source: the file, which is read and not imported: some of them import torch.
        name: the class. Fields of the frameworks' own base classes are also those of the classes here.
    """
    tree = ast.parse(source.read_text("utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    names: list[str] = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names += [node.target.id, *_aliases(node.value)]
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names += [each.arg for each in (*node.args.args, *node.args.kwonlyargs) if each.arg != "self"]
    return sorted({each for each in names if not each.startswith("_") and each != "model_config"})


def _aliases(value: ast.expr | None) -> Iterator[str]:
    if isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg == "alias" and isinstance(keyword.value, ast.Constant):
                yield str(keyword.value.value)


def arguments_of(incumbent: Incumbent, source: Path) -> list[str]:
    """Return the arguments of an incumbent, with those of its base class in the same file."""
    names = [incumbent.name, *([incumbent.base] if incumbent.base else [])]
    return sorted({argument for name in names for argument in arguments_in(source, name)})


def written_arguments() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(ARGUMENTS.read_text("utf-8"))
    return found


def page_text(page: str) -> str:
    """Return the page with its tables made again."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(tables()) + "\n" + END + rest.partition(END)[2]


def tables() -> Iterator[str]:
    """Yield the lines of one table for each class."""
    written = written_arguments()
    for each in INCUMBENTS:
        known = each.accepted()
        yield f"\n### `{each.name}` of {each.package}\n"
        yield f"| `{each.name}` | `{each.ours.rpartition('.')[2]}` |\n|---|---|"
        for name in written[each.name]:
            yield f"| `{name}` | {'the same' if name in known else cell(hint_for(name, known) or '?')} |"


if __name__ == "__main__":
    missing = [each.package for each in INCUMBENTS if each.source() is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; run make setup")
    read = {each.name: arguments_of(each, source) for each in INCUMBENTS if (source := each.source())}
    ARGUMENTS.write_text(json.dumps(read, indent=1) + "\n", "utf-8")
    PAGE.write_text(page_text(PAGE.read_text("utf-8")), "utf-8")
