"""`hf-gateway quickstart`: the main job from end to end, on real documents, in one command."""

import argparse
import contextlib
import dataclasses
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from hf_gateway.cli.documents import SUFFIXES, DocumentReader
from hf_gateway.cli.output import console, literal, print_json
from hf_gateway.cli.splitting import ready_chain
from hf_gateway.errors import InvalidRequest
from hf_gateway.gateway import Gateway
from hf_gateway.retrieval.splitting import Source, Split
from hf_gateway.runtime.progress_bar import ShowProgress, progress_bar
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.embedding import EmbedResult
from hf_gateway.values.logs import logger
from hf_gateway.values.wording import quantity

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUESTIONS = ("How do I catch an exception?", "How do I take a slice of a list?", "What does the with statement do?")
PASSAGES = 3
"""Number of passages that are shown for a question."""
SHOWN_CHARS = 110
"""Characters of a passage that are shown."""
log = logger(__name__)


@dataclasses.dataclass(frozen=True)
class Passage:
    """A piece of a document that was found."""

    score: float
    """Cosine similarity to the question."""
    source: str
    """Name of the document."""
    text: str
    """The piece, in one line."""


class FrameworkIndex(Protocol):
    """What the class `Index` of each framework's module does for this command."""

    def __init__(self, gateway: EmbeddingGateway) -> None: ...
    def split(
        self, documents: Iterable[Source], max_tokens: int, overlap: int, tokens: Callable[[str], list[int]]
    ) -> list[Source]:
        """Split documents into pieces.

        Args:
            documents: the documents.
            max_tokens: tokens of a piece at most.
            overlap: tokens of a piece that the next one repeats.
            tokens: returns the numbers of a text's tokens.

        Returns:
            The pieces, with the documents that they are of.
        """

    def build(self, pieces: Sequence[Source], show: ShowProgress | None) -> None:
        """Embed and index pieces, and show how many are done.

        Args:
            pieces: the pieces, by whichever framework they were split.
            show: is called with how many are done, and of how many.
        """

    def ask(self, question: str, count: int) -> list[tuple[float, str, str]]:
        """Search the pieces.

        Args:
            question: what is looked for.
            count: how many pieces are wanted.

        Returns:
            Score, source and text of each, the best first.
        """


INDEXES = {name: f"hf_gateway.cli.quickstart.{name}_index" for name in ("langchain", "llamaindex")}
"""Modules with a class `Index`, each of which imports its framework."""
CORES = {"langchain": "langchain_core", "llamaindex": "llama_index"}
NAMES = {"langchain": "LangChain", "llamaindex": "LlamaIndex"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        help="a file or folder (text, Markdown, HTML, PDF); default: Python's own language reference",
    )
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="a question of yours; may be repeated")
    parser.add_argument("--framework", choices=[*INDEXES, "both"], help="default: whichever are installed")


def run(arguments: argparse.Namespace) -> int:
    """Index and query the documents through each framework; return 0 on success."""
    if arguments.path is not None and not arguments.path.exists():
        raise InvalidRequest(f"{arguments.path}: no such file or folder")
    questions = arguments.ask or list(QUESTIONS)
    frameworks = _frameworks(arguments.framework)
    out = None if arguments.json else console()
    results = []
    reader = DocumentReader(arguments.path)
    documents = [(document.source, document.text) for document in reader.documents()]
    for line in reader.account():
        sys.stderr.write(line + "\n")
    if not documents:
        raise InvalidRequest(
            f"{arguments.path}: contains no text that could be indexed ({', '.join(SUFFIXES)} are read)"
        )
    with _ready(arguments, questions[0], len(frameworks) > 1) as (gateway, split):
        pieces: list[Source] = []
        for framework in frameworks:
            index: FrameworkIndex = importlib.import_module(INDEXES[framework]).Index(gateway)
            if not pieces:
                pieces = _split_documents(index, documents, split)
            result = {
                "framework": framework,
                "split_by": frameworks[0],
                "documents": len({source for source, _ in documents}),
                **_query(index, framework, gateway, pieces, questions),
            }
            results.append(result)
            if out is not None:
                _print_answer(out, result)
    if arguments.json:
        print_json({"model": gateway.model, "skipped": reader.skipped, "results": results})
    return 0


@contextlib.contextmanager
def _ready(arguments: argparse.Namespace, question: str, share: bool) -> Iterator[tuple[EmbeddingGateway, Split]]:
    """Yield a chain whose model is loaded, and how documents are cut for it.

    Args:
        arguments: model and targets.
        question: is embedded to load the model.
        share: whether vectors are kept until the end, for a second framework with the same pieces.
    """
    model, targets = arguments.model or DEFAULT_MODEL, arguments.targets
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "vectors.sqlite") if share else None
        with ready_chain(lambda truncate: Gateway(model, targets, cache=cache, truncate=truncate), question) as ready:
            yield ready


def _frameworks(asked: str | None) -> list[str]:
    installed = [name for name, package in CORES.items() if find_spec(package) is not None]
    wanted = list(INDEXES) if asked == "both" else [asked] if asked else installed or list(INDEXES)
    if missing := [name for name in wanted if name not in installed]:
        raise ImportError(f"{NAMES[missing[0]]} is not installed: pip install 'hf-gateway[{missing[0]}]'")
    return wanted


def _split_documents(index: FrameworkIndex, documents: Sequence[Source], split: Split) -> list[Source]:
    return index.split(documents, split.max_tokens, split.overlap, split.tokens)


def _query(
    index: FrameworkIndex,
    framework: str,
    gateway: EmbeddingGateway,
    pieces: Sequence[Source],
    questions: Sequence[str],
) -> dict[str, Any]:
    """Index the pieces and answer the questions.

    Args:
        index: the index of the framework.
        framework: name of the framework.
        gateway: embeds for the index.
        pieces: what is indexed.
        questions: what is asked.

    Returns:
        What was measured, and the answers.
    """
    seen: list[EmbedResult] = []
    gateway.observe(seen.append)
    started = time.perf_counter()
    with progress_bar(f"{NAMES[framework]}: indexing", counts_bytes=False) as show:
        index.build(pieces, show)
    seconds = time.perf_counter() - started
    cached = sum(result.cached for result in seen)
    served_by = sorted({name for result in seen for name in result.served_by})
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
        "pieces": len(pieces),
        "cached": cached,
        "served_by": served_by,
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": None if tokens is None else tokens / seconds,
        "answers": answers,
    }


def _print_answer(out: Any, result: dict[str, Any]) -> None:
    rate = ""
    if result["cached"] and result["framework"] != result["split_by"]:
        # Otherwise its seconds, of a few vectors or none, would be taken for the framework's.
        rate = f", {quantity(result['cached'], 'vector')} from the cache, as {NAMES[result['split_by']]} has the same pieces"
    elif result["tokens"] is not None:
        rate = f", {quantity(result['tokens'], 'token')}, {result['tokens_per_second']:,.0f} tokens/s"
    size = f"{quantity(result['documents'], 'document')} in {quantity(result['pieces'], 'piece')}"
    out.print(f"\n[bold]{NAMES[result['framework']]}[/bold]: {size}, indexed in {result['seconds']:.1f} s{rate}, "
              f"served by {literal(', '.join(result['served_by']))}")  # fmt: skip
    for answer in result["answers"]:
        out.print(f"\n  [bold]{literal(answer['question'])}[/bold]  [dim]{answer['seconds'] * 1000:.0f} ms[/dim]")
        for passage in answer["passages"]:
            text = passage["text"]
            shown = text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS].rsplit(" ", 1)[0] + " …"
            out.print(f"    {passage['score']:.3f}  [cyan]{literal(passage['source'])}[/cyan]  {literal(shown)}")
