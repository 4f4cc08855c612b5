"""`hf-gateway classify`: label texts or images."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from hf_gateway.cli.chosen_gateway import gateway_of
from hf_gateway.cli.output import Table, check_text, console, count_above_0, literal, print_json, shortened, stdin_text
from hf_gateway.errors import ConfigError, InvalidRequest, visible
from hf_gateway.tasks.classification.gateway import ClassifyGateway
from hf_gateway.values.labels import ClassifyResult
from hf_gateway.values.wording import quantity

MAX_LABELS = 5
"""Labels of an input in the table, unless --top-k asks for more; --json prints all."""
MAX_SHOWN_CHARS = 80
"""Characters of an input in the table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="TEXT|FILE",
        help="the texts, by default one per line of stdin; with --image the files of the images",
    )
    parser.add_argument("--image", action="store_true", help="label images, whose files are named")
    parser.add_argument(
        "--labels", metavar="A,B,C", help="labels to choose from (zero-shot); by default the model's own"
    )
    parser.add_argument("--multi-label", action="store_true", help="score each of --labels by itself")
    parser.add_argument(
        "--template", metavar="TEXT", help="sentence that the model judges, with {} for each of --labels"
    )
    parser.add_argument("--top-k", type=count_above_0, metavar="K", help="labels of each input, the most likely ones")
    parser.add_argument("--truncate", action="store_true", help="truncate texts that are too long for the model")
    parser.add_argument("--chain", help="a chain of the config file; --model and --targets replace its own")


def run(arguments: argparse.Namespace) -> int:
    """Print the labels of each input, and which target gave them on stderr; with --json all as one document."""
    names, inputs = _images(arguments.inputs) if arguments.image else _texts(arguments.inputs)
    with _gateway(arguments) as gateway:
        result = gateway.classify(inputs)
    if arguments.json:
        print_json(_as_json(result, names))
        return 0
    _print(result, names, arguments.top_k or MAX_LABELS)
    counted = quantity(len(names), "image" if arguments.image else "text")
    served = visible(", ".join(result.served_by))
    sys.stderr.write(f"{counted} by {served} in {result.seconds:.2f} s\n")
    return 0


def _texts(given: list[str]) -> tuple[list[str], list[str]]:
    texts = given or [line for line in stdin_text().split("\n") if line.strip()]
    if not texts:
        raise InvalidRequest("no texts to classify; give texts, or pipe one per line")
    check_text({f"text {place}": text for place, text in enumerate(texts)})
    return texts, texts


def _images(files: list[str]) -> tuple[list[str], list[bytes]]:
    if not files:
        raise ConfigError("--image needs the files of the images")
    return files, [Path(file).read_bytes() for file in files]


def _gateway(arguments: argparse.Namespace) -> ClassifyGateway:
    changes = {
        "labels": None if arguments.labels is None else [each.strip() for each in arguments.labels.split(",")],
        "multi_label": arguments.multi_label or None,
        "hypothesis_template": arguments.template,
        "top_k": arguments.top_k,
        "truncate": arguments.truncate or None,
    }
    if arguments.labels is None and not arguments.chain and (arguments.multi_label or arguments.template):
        raise ConfigError("--multi-label and --template are for labels of your own: --labels A,B,C")
    return gateway_of(ClassifyGateway, arguments, changes)


def _as_json(result: ClassifyResult, names: list[str]) -> dict[str, Any]:
    return {
        "results": [
            {"input": name, "labels": [dataclasses.asdict(each) for each in labels]}
            for name, labels in zip(names, result, strict=True)
        ],
        "served_by": result.served_by,
        "attempts": [dataclasses.asdict(attempt) for attempt in result.attempts],
        "usage": {
            "input_tokens": result.usage.input_tokens,
            "documents": result.usage.documents,
            "images": result.usage.images,
        },
    }


def _print(result: ClassifyResult, names: list[str], most: int) -> None:
    table = Table(("input", "label", "score"), right=frozenset({"score"}), fold=frozenset({"input"}))
    for name, labels in zip(names, result, strict=True):
        shown = shortened(name, MAX_SHOWN_CHARS)
        for place, each in enumerate(labels[:most]):
            table.add("" if place else literal(shown), literal(each.label), f"{each.score:.4f}")
    console().print_table(table)
