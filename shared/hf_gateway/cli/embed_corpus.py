"""`hf-gateway embed-corpus`: embed the texts of files into parts; run again with the same arguments, it resumes."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hf_gateway.cli.chosen_gateway import naming_chains
from hf_gateway.cli.output import print_json
from hf_gateway.errors import visible
from hf_gateway.runtime.progress_bar import ShowProgress, progress_bar
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    from hf_gateway.corpus import CorpusReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "source",
        metavar="IN",
        help="files: a path, a folder, a glob or a URL; Parquet, Arrow, JSONL, CSV or lines of text",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="the folder of the parts: new, or of the same job; or a collection of a store: qdrant:WHERE#COLLECTION, "
        "lancedb:WHERE#TABLE, chroma:WHERE#COLLECTION, postgresql://USER@HOST/DATABASE#TABLE; WHERE is a folder or a URL",
    )
    parser.add_argument(
        "--job-folder",
        metavar="FOLDER",
        help="where the plan and the records of a job are that writes into a store (the collection's name with .job)",
    )
    parser.add_argument("--chain", help="the chain of the config file that embeds")
    parser.add_argument(
        "--text",
        default="text",
        metavar="COLUMN",
        help="the column of the texts (text), or a template: '{title}: {body}'",
    )
    parser.add_argument(
        "--id", default="id", metavar="COLUMN", help="the column of the ids (id); without one they are file#row"
    )
    parser.add_argument("--columns", default="", metavar="NAMES", help="columns that are copied, separated by commas")
    parser.add_argument(
        "--split",
        type=int,
        nargs="?",
        const=256,
        metavar="TOKENS",
        help="cut documents into passages of so many tokens at most (256), with ids of the form doc#n",
    )
    parser.add_argument(
        "--format", choices=["parquet", "arrow", "npy", "lance"], default="parquet", help="of the parts (parquet)"
    )
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="of the vectors (float32)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each with the model (1)")
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="run the workers on this machine (local), or as actors of the Ray cluster that RAY_ADDRESS names; without one Ray "
        "runs on this machine",
    )
    parser.add_argument(
        "--gpus", type=float, default=0.0, metavar="F", help="GPUs, or the share of one, of each worker of Ray (0)"
    )
    parser.add_argument("--shard-rows", type=int, default=10_000, metavar="N", help="rows of a part at most (10000)")
    parser.add_argument(
        "--shard-bytes", type=int, default=64 * 2**20, metavar="N", help="bytes of a part's texts at most (67108864)"
    )
    parser.add_argument(
        "--on-bad-row",
        choices=["fail", "dead-letter"],
        default="fail",
        help="a row that cannot be embedded ends the job (fail), or is named beside the part",
    )
    parser.add_argument(
        "--since",
        metavar="OUT",
        help="the folder of an earlier job: texts that it has are not embedded again; OUT itself is brought up to date",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="estimate rows, tokens, price, time and disk by a sample; write nothing"
    )
    parser.add_argument("--max-bad", type=int, default=1000, metavar="N", help="rows that are left out at most (1000)")
    parser.add_argument(
        "--limit-rps", type=float, metavar="N", help="requests a second that all workers send to a server at most"
    )
    parser.add_argument(
        "--limit-tps", type=float, metavar="N", help="tokens a second that all workers send to a server at most"
    )
    parser.add_argument(
        "--redis", metavar="URL", help="keep the limits in a Redis, also with other jobs; without it they are divided"
    )


def run(arguments: argparse.Namespace) -> int:
    """Embed; returns 0 when all parts are written, 130 after Ctrl-C."""
    from hf_gateway.corpus import embed_dataset

    if arguments.dry_run:
        return _estimate(arguments)
    try:
        with (
            contextlib.redirect_stdout(sys.stderr),  # Ray prints what it has to say of its nodes
            naming_chains("embedding", arguments.config),
            progress_bar("embedding", counts_bytes=False, wanted=not arguments.json) as show,
        ):
            report = embed_dataset(
                arguments.source, arguments.out, **_options(arguments), on_part=_part_report(show, arguments.json)
            )
    except KeyboardInterrupt:
        sys.stderr.write(
            f"stopped; the finished parts are kept in {_name(arguments.out)}: run the same command again to go on\n"
        )
        return 130
    if arguments.json:
        print_json({"out": _name(arguments.out), **_facts(report)})
        return 0
    sys.stdout.write(f"{_name(arguments.out)}: {_summary(report)}\n")
    return 0


def _name(out: str) -> str:
    """Return OUT as it is shown: without the password of a database."""
    from hf_gateway.corpus.stores.base import parse_place

    place = parse_place(out)
    return visible(out if place is None else place.public_name)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ["text", "id", "workers", "shard_rows", "shard_bytes", "on_bad_row", "max_bad", "chain", "config"]
    names += ["split", "dtype", "limit_rps", "limit_tps", "redis", "since", "job_folder", "engine", "gpus"]
    options = {name: getattr(arguments, name) for name in names} | {"form": arguments.format}
    options["keep"] = [name for name in arguments.columns.split(",") if name]
    return options | {name: value for name in ("model", "targets") if (value := getattr(arguments, name))}


def _estimate(arguments: argparse.Namespace) -> int:
    from hf_gateway.corpus.estimate import estimate_dataset
    from hf_gateway.corpus.folders import folders_of
    from hf_gateway.corpus.job_settings import check_sizes

    names = ("text", "id", "keep", "shard_rows", "shard_bytes", "split", "dtype", "chain", "config", "model", "targets")
    options = _options(arguments)
    check_sizes(options["shard_rows"], options["shard_bytes"], options["workers"])
    earlier = folders_of(arguments.out, arguments.since, arguments.job_folder).earlier
    found = estimate_dataset(
        arguments.source, since=earlier, **{name: options[name] for name in names if name in options}
    )
    cost = None if found.cost_usd is None else f"{found.cost_usd.normalize():f}"
    if arguments.json:
        print_json({**dataclasses.asdict(found), "cost_usd": cost})
        return 0
    counted = {"embedded": "by embedding", "tokenizer": "by the model's tokenizer from", "estimate": "by the bytes of"}
    sample = f"{counted[found.counted]} {quantity(found.sample_rows, 'row')}"
    passages = "" if found.vectors == found.rows else f", {quantity(found.vectors, 'passage')}"
    seconds = (
        "unknown: the target was sent nothing" if found.seconds is None else f"{found.seconds:,.1f} s with one worker"
    )
    disk = "unknown" if found.disk_bytes is None else f"{found.disk_bytes / 1e6:,.1f} MB"
    sys.stdout.write(
        f"{quantity(found.rows, 'row')} in {quantity(found.parts, 'part')}{passages}\n"
        f"tokens: {found.tokens:,} ± {found.tokens_error:.1%}, {sample}\n"
        f"price: {'unknown' if cost is None else f'{cost} USD'}\n"
        f"time: {seconds}\n"
        f"disk: {disk}\n"
    )
    if found.bad_rows:
        sys.stdout.write(f"bad: {quantity(found.bad_rows, 'row')} of the sample cannot be embedded\n")
    return 0


def _facts(report: "CorpusReport") -> dict[str, Any]:
    return {
        "rows": report.rows,
        "of": report.total,
        "dead": report.dead,
        "vectors": report.vectors,
        "reused": report.reused,
        "parts": report.parts,
        "resumed": report.resumed,
        "tokens": report.tokens,
        "run_tokens": report.run_tokens,
        "cost_usd": None if report.cost_usd is None else str(report.cost_usd),
        "seconds": round(report.seconds, 3),
    }


def _summary(report: "CorpusReport") -> str:
    said = [f"{quantity(report.rows, 'row')} in {quantity(report.parts, 'part')}"]
    if report.vectors != report.rows - report.dead:
        said.append(quantity(report.vectors, "passage"))
    if report.reused:
        said.append(f"{quantity(report.reused, 'vector')} of the earlier job")
    if report.dead:
        said.append(f"{quantity(report.dead, 'dead letter')} beside them")
    if report.resumed:
        said.append(f"{quantity(report.resumed, 'part')} of an earlier run")
    if report.tokens:
        said.append(quantity(report.tokens, "token"))
    if report.cost_usd:
        said.append(f"{report.cost_usd.normalize():f} USD")
    return ", ".join([*said, f"{report.seconds:.1f} s"])


def _part_report(show: ShowProgress | None, json_lines: bool) -> Callable[["CorpusReport"], None]:
    """Return what reports each part: a line of JSON on stderr, or the progress bar.

    Args:
        show: moves the bar, where there is one.
        json_lines: whether a program reads along.
    """

    def tell(report: "CorpusReport") -> None:
        if json_lines:
            sys.stderr.write(json.dumps({"part": report.part, **_facts(report)}) + "\n")
            sys.stderr.flush()
        elif show is not None:
            show(report.rows, report.total, _step(report))

    return tell


def _step(report: "CorpusReport") -> str:
    said = [f"{report.dead} bad"] if report.dead else []
    if report.run_tokens:
        said.append(f"{report.run_tokens / report.seconds:,.0f} tokens/s")
    if report.cost_usd:
        said.append(f"{report.cost_usd:.4f} USD")
    return ", ".join(said)
