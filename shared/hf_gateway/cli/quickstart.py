"""`hf-gateway quickstart`: the main job from end to end, on real documents, in one command."""

import argparse
import dataclasses
import importlib
import logging
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from hf_gateway.cli.output import console, print_json, progress
from hf_gateway.embedding import EmbedResult
from hf_gateway.errors import InvalidRequest
from hf_gateway.gateway import Gateway

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUESTIONS = ("How do I catch an exception?", "How do I take a slice of a list?", "What does the with statement do?")
PASSAGES = 3
SHOWN = 110

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Passage:
    """A piece of a document that was found. score: cosine similarity to the question."""

    score: float
    source: str
    text: str


class FrameworkIndex(Protocol):
    """What each framework's door gives for this command, in its module `quickstart`, as the class `Index`."""

    def __init__(self, gateway: Gateway) -> None: ...
    def load(self, path: Path | None) -> tuple[int, int]:
        """Load and split; returns how many documents and how many pieces."""

    def build(self, step: Callable[[int], None]) -> None:
        """Embed and index the pieces, telling `step` how many were done each time."""

    def ask(self, question: str, count: int) -> list[tuple[float, str, str]]:
        """Return (score, source, text) of the best pieces, the best first."""


DOORS = {"langchain": "langchain_hf_gateway.quickstart", "llamaindex": "llamaindex_hf_gateway.quickstart"}
CORES = {"langchain": "langchain_core", "llamaindex": "llama_index"}
NAMES = {"langchain": "LangChain", "llamaindex": "LlamaIndex"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        help="a file or folder (text, Markdown, HTML, PDF); default: Python's own language reference",
    )
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="a question of yours; may be repeated")
    parser.add_argument("--framework", choices=[*DOORS, "both"], help="default: whichever are installed")


def run(arguments: argparse.Namespace) -> int:
    """Index and ask through each framework; 0 when all went well."""
    if arguments.path is not None and not arguments.path.exists():
        raise InvalidRequest(f"{arguments.path}: no such file or folder")
    questions = arguments.ask or list(QUESTIONS)
    frameworks = _frameworks(arguments.framework)
    out = None if arguments.json else console()
    results = []
    # Texts beyond the model's length are cut here: tables of the reference have a token for each dash.
    with Gateway(arguments.model or DEFAULT_MODEL, arguments.targets, truncate=True) as gateway:
        for framework in frameworks:
            result = _through(framework, gateway, arguments.path, questions)
            results.append(result)
            if out is not None:
                _show(out, result)
    if arguments.json:
        print_json({"model": gateway.model, "results": results})
    return 0


def _frameworks(asked: str | None) -> list[str]:
    installed = [name for name, package in CORES.items() if find_spec(package) is not None]
    wanted = list(DOORS) if asked == "both" else [asked] if asked else installed or list(DOORS)
    if missing := [name for name in wanted if name not in installed]:
        raise ImportError(f"{NAMES[missing[0]]} is not installed: pip install 'hf-gateway[{missing[0]}]'")
    return wanted


def _through(framework: str, gateway: Gateway, path: Path | None, questions: list[str]) -> dict[str, Any]:
    index: FrameworkIndex = importlib.import_module(DOORS[framework]).Index(gateway)
    documents, pieces = index.load(path)
    if not pieces:
        raise InvalidRequest(
            f"{path}: there is no text in it that could be indexed (text, Markdown, HTML and PDF are read)"
        )
    seen: list[EmbedResult] = []
    gateway.observe(seen.append)
    started = time.perf_counter()
    with progress(f"{NAMES[framework]}: indexing", pieces) as step:
        index.build(step)
    seconds = time.perf_counter() - started
    known = [result.usage.input_tokens for result in seen]
    tokens = None if None in known else sum(count or 0 for count in known)
    answers = []
    for question in questions:
        before = time.perf_counter()
        found = [
            Passage(score, source, " ".join(text.split())) for score, source, text in index.ask(question, PASSAGES)
        ]
        answers.append(
            {
                "question": question,
                "seconds": time.perf_counter() - before,
                "passages": [dataclasses.asdict(passage) for passage in found],
            }
        )
    return {
        "framework": framework,
        "documents": documents,
        "pieces": pieces,
        "served_by": sorted({name for result in seen for name in result.served_by}),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": None if tokens is None else tokens / seconds,
        "answers": answers,
    }


def _show(out: Any, result: dict[str, Any]) -> None:
    from rich.markup import escape

    rate = (
        ""
        if result["tokens"] is None
        else f", {result['tokens']:,} tokens, {result['tokens_per_second']:,.0f} tokens/s"
    )
    out.print(f"\n[bold]{NAMES[result['framework']]}[/bold]: {result['documents']} documents in {result['pieces']} pieces, "
              f"indexed in {result['seconds']:.1f} s{rate}, served by {escape(', '.join(result['served_by']))}")  # fmt: skip
    for answer in result["answers"]:
        out.print(f"\n  [bold]{escape(answer['question'])}[/bold]  [dim]{answer['seconds'] * 1000:.0f} ms[/dim]")
        for passage in answer["passages"]:
            text = passage["text"]
            shown = text if len(text) <= SHOWN else text[:SHOWN].rsplit(" ", 1)[0] + " …"
            out.print(f"    {passage['score']:.3f}  [cyan]{escape(passage['source'])}[/cyan]  {escape(shown)}")
