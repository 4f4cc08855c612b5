"""`hf-gateway rerank`: sort the lines of a file by how well they answer a query."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gateway.cli.chosen_gateway import gateway_of
from hf_gateway.cli.output import (
    Table,
    check_text,
    console,
    count_above_0,
    literal,
    not_text,
    print_json,
    shortened,
    stdin_text,
)
from hf_gateway.errors import InvalidRequest, visible
from hf_gateway.tasks.rerank.gateway import RerankGateway
from hf_gateway.values.rerank import RerankResult
from hf_gateway.values.text_batches import text_fault
from hf_gateway.values.wording import quantity

TEXT_FIELDS = ("text", "document", "page_content", "content")
"""Names under which an object in a line of JSON may have its text."""
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
"""Ends of the names of files whose lines are JSON."""
MAX_SHOWN_CHARS = 160
"""Characters of a document in the table; --json prints all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("query", metavar="QUERY", help="what is searched for")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="documents, one per line; or JSON lines, if each of them is a string or an object with "
        f"{', '.join(TEXT_FIELDS)}, or the name ends in {', '.join(JSON_ENDINGS)}; - for stdin",
    )
    parser.add_argument("--chain", help="a chain of the config file; --model and --targets replace its own")
    parser.add_argument("--top-n", type=count_above_0, metavar="N", help="print the N best ones only")
    parser.add_argument("--scale", choices=["probability", "logit"], help="scale of the scores of models (probability)")
    parser.add_argument("--truncate", action="store_true", help="truncate documents that are too long for the model")


def run(arguments: argparse.Namespace) -> int:
    """Print the documents, best first, and which target scored them on stderr; with --json all as one document."""
    check_text({"the query": arguments.query})
    place = "stdin" if arguments.file == "-" else arguments.file
    lines, documents = _documents(arguments.file, place)
    if not documents:
        raise InvalidRequest(f"no documents in {place}; write one per line")
    changes = {"top_n": arguments.top_n, "scale": arguments.scale, "truncate": arguments.truncate or None}
    with gateway_of(RerankGateway, arguments, changes) as gateway:
        result = gateway.rerank(arguments.query, documents)
    if arguments.json:
        print_json(_as_json(result, lines))
        return 0
    _print(result, lines)
    served = visible(", ".join(result.served_by))
    sys.stderr.write(f"{quantity(len(documents), 'document')} by {served} in {result.seconds:.2f} s\n")
    return 0


def _documents(file: str, place: str) -> tuple[list[int], list[str]]:
    """Return the numbers of the lines with a document, from 1, and the documents; blank lines are skipped.

    Args:
        file: path of the file, or "-".
        place: what the file is called in errors.
    """
    try:
        text = stdin_text() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_text(place, error) from None
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    if file.lower().endswith(JSON_ENDINGS) or all(map(_is_document, lines.values())):
        lines = {number: _text_of(line, number, place) for number, line in lines.items()}
    for number, document in lines.items():
        if fault := text_fault(document):
            raise InvalidRequest(f"line {number} of {place} {fault}; nothing was ranked")
    return list(lines), list(lines.values())


def _is_document(line: str) -> bool:
    """Return whether a line is a string or an object in JSON, as text in quotation marks or braces alone may be, too."""
    if not line.lstrip().startswith(("{", '"')):
        return False  # most texts, without parsing them
    try:
        return isinstance(json.loads(line), str | dict)
    except (ValueError, RecursionError):
        return False


def _text_of(line: str, number: int, place: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"line {number} of {place} is not JSON, which the file's name promises") from None
    if isinstance(value, dict):
        value = next((value[name] for name in TEXT_FIELDS if isinstance(value.get(name), str)), None)
    if not isinstance(value, str):
        raise InvalidRequest(
            f"line {number} of {place} has no text: it should be a string, or an object with one of {', '.join(TEXT_FIELDS)}"
        )
    return value


def _as_json(result: RerankResult, lines: Sequence[int]) -> dict[str, Any]:
    return {
        "scale": result.scale,
        "served_by": result.served_by,
        "attempts": [dataclasses.asdict(attempt) for attempt in result.attempts],
        "usage": {"input_tokens": result.usage.input_tokens, "documents": result.usage.documents},
        "hits": [{**dataclasses.asdict(hit), "line": lines[hit.index]} for hit in result],
    }


def _print(result: RerankResult, lines: Sequence[int]) -> None:
    table = Table(("score", "line", "document"), right=frozenset({"score", "line"}), fold=frozenset({"document"}))
    for hit in result:
        shown = shortened(hit.document, MAX_SHOWN_CHARS)
        table.add(f"{hit.score:.4f}", str(lines[hit.index]), literal(shown))
    console().print_table(table)
