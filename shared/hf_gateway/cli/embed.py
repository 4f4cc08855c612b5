"""`hf-gateway embed`: embed texts, and print the vectors."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from hf_gateway.cli.chosen_gateway import gateway_of
from hf_gateway.cli.output import stdin_text
from hf_gateway.errors import InvalidRequest, visible
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.tasks.sparse.gateway import SparseGateway
from hf_gateway.values.sparse import SparseVector
from hf_gateway.values.wording import quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the texts; by default one per line of stdin")
    parser.add_argument(
        "--role", choices=["query", "document"], default="document", help="role of the texts in a search"
    )
    parser.add_argument("--sparse", action="store_true", help="print sparse vectors: indexes and values")
    parser.add_argument("--chain", help="a chain of the config file; --model and --targets replace its own")
    parser.add_argument("--truncate", action="store_true", help="cut texts that are too long for the model")


def run(arguments: argparse.Namespace) -> int:
    """Print one JSON object per text, in order; print which target served on stderr."""
    texts = arguments.texts or [line for line in stdin_text().split("\n") if line.strip()]
    if not texts:
        raise InvalidRequest("no texts to embed; give texts, or pipe one per line")
    kind: type[Any] = SparseGateway if arguments.sparse else EmbeddingGateway
    row: Callable[[str, Any], dict[str, Any]] = _sparse_row if arguments.sparse else _dense_row
    with gateway_of(kind, arguments, {"truncate": arguments.truncate or None}) as gateway:
        result = gateway.embed(texts, role=arguments.role)
    for text, vector in zip(texts, result.vectors, strict=True):
        sys.stdout.write(json.dumps(row(text, vector)) + "\n")
    tokens = "" if result.usage.input_tokens is None else f", {quantity(result.usage.input_tokens, 'token')}"
    served = visible(", ".join(result.served_by))
    sys.stderr.write(f"{quantity(len(texts), 'text')} by {served} in {result.seconds:.2f} s{tokens}\n")
    return 0


def _dense_row(text: str, vector: list[float]) -> dict[str, Any]:
    return {"text": text, "embedding": vector}


def _sparse_row(text: str, vector: SparseVector) -> dict[str, Any]:
    return {"text": text, "indices": vector.indices, "values": vector.values}
