"""`hf-gateway hub publish`: check a PEFT adapter and publish it on the Hub in one commit."""

import argparse
import json
import math
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.cli.output import Table, console, literal, print_json
from hf_gateway.errors import ConfigError
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    from hf_gateway.hub.plan import PublishPlan
    from hf_gateway.hub.publish import Published

TEXTS = {
    "license": "the adapter's licence, by the Hub's identifier, such as apache-2.0",
    "license-name": "with --license other: the name of the licence",
    "license-link": "with --license other: the URL of the licence",
    "base-model": "the base model's Hub id, if the adapter's files contain a local path instead",
    "base-license": "the base model's licence, if the Hub names none",
    "title": "the card's title",
    "description": "what the adapter does, for the card",
    "limitations": "known limitations, for the card",
    "pipeline-tag": "the task as the Hub names it, such as text-generation",
}
LISTS = {
    "dataset": "a dataset of the training; may be repeated",
    "language": "a language, such as en; may be repeated",
    "tag": "a tag; may be repeated",
}
_FIELDS = {"dataset": "datasets", "tag": "tags"}


def add_publish(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Add the command; `run` executes it."""
    summary = "publish a PEFT adapter on the Hub: checked first, in one commit, private by default"
    parser = subparsers.add_parser("publish", help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that save_pretrained wrote")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; it is created if it does not exist")
    parser.add_argument("--dry-run", action="store_true", help="show the card and the files, and send nothing")
    parser.add_argument("--public", action="store_true", help="publish openly; private otherwise")
    parser.add_argument("--metadata", type=Path, metavar="FILE", help="the following options, as TOML or JSON")
    for name, help_ in TEXTS.items():
        parser.add_argument(f"--{name}", metavar="TEXT", help=help_)
    for name, help_ in LISTS.items():
        parser.add_argument(f"--{name}", action="append", metavar="TEXT", help=help_)
    parser.add_argument(
        "--metric", action="append", metavar="NAME=NUMBER", help="a result on the first --dataset; may be repeated"
    )
    parser.add_argument("--training", type=Path, metavar="FILE", help="the training's settings, as TOML or JSON")
    parser.add_argument(
        "--license-checked", action="store_true", help="you have read the base model's licence, and it allows this"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Publish, or show what would be published; return 0 on success."""
    from hf_gateway.hub.publish import publish

    metadata = _metadata(arguments)
    out = None if arguments.json else console()
    done = publish(
        arguments.folder,
        repo_id=arguments.repo_id,
        metadata=metadata,
        # None for options that were not given: then the file's value is used.
        private=False if arguments.public else None,
        dry_run=arguments.dry_run or None,
        license_checked=arguments.license_checked or None,
        progress=(lambda *_: None) if arguments.json else None,
    )
    sent = done.commit is not None
    if out is None:
        print_json({"dry_run": not sent, **done.to_dict()})
    elif not sent:
        _show_plan(out, done.plan)
    else:
        _show_done(out, done)
    return 0


def _metadata(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the file's metadata, with the options on the command line over them."""
    found = _read(arguments.metadata) if arguments.metadata else {}
    for name in (*TEXTS, *LISTS):
        if value := getattr(arguments, name.replace("-", "_")):
            found[_FIELDS.get(name, name.replace("-", "_"))] = value
    if arguments.training:
        found["training"] = _read(arguments.training)
    if arguments.metric:
        found["metrics"] = dict(map(_metric, arguments.metric))
    return found


def _metric(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    with suppress(ValueError):
        if math.isfinite(value := float(number)):
            return name.strip(), value
    raise ConfigError(f"--metric is a name and a number, such as accuracy=0.91, not {text!r}")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is neither TOML nor, with the ending .json, JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: is not a mapping of names to values")
    return data


def _show_plan(out: Any, plan: "PublishPlan") -> None:
    kind = "private" if plan.private else "public"
    out.print(f"[bold]{literal(plan.repo_id)}[/bold] ({kind}), on {literal(plan.endpoint)}: nothing was sent\n")
    table = Table(("file", "bytes"), right=frozenset({"bytes"}))
    for file in plan.files:
        table.add(literal(file.path), f"{file.size:,}")
    out.print_table(table)
    lists = (
        ("changed", plan.changed),
        ("not published", plan.left_out),
        ("not checked without the Hub", plan.unchecked),
    )
    for title, lines in lists:
        if lines:
            out.print(f"\n{title}:")
            for line in lines:
                out.print(f"  - {literal(line)}")
    out.print("\n[bold]README.md[/bold]\n")
    out.print(plan.card, markup=False, end="")


def _show_done(out: Any, done: "Published") -> None:
    kind = "private" if done.private else "public"
    what = (
        "was there already, unchanged"
        if done.already_there
        else f"{quantity(len(done.plan.files), 'file')} in one commit"
    )
    out.print(f"[green]published[/green] {literal(str(done.url))} ({kind}{', new' if done.created else ''}): {what}")
    out.print(f"  commit {done.commit}")
    for line in (*done.plan.changed, *(f"{name} is not published" for name in done.plan.left_out)):
        out.print(f"  {literal(line)}")
