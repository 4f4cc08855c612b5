"""`hf-gateway embed-corpus`: embed the texts of Parquet files into parts; run again with the same arguments, it resumes."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from hf_gateway.cli.output import print_json
from hf_gateway.errors import visible
from hf_gateway.runtime.progress_bar import ShowProgress, progress_bar
from hf_gateway.values.wording import quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", type=Path, metavar="IN", help="a Parquet file, or a folder of them")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the parts: new, or of the same job")
    parser.add_argument("--chain", help="the chain of the config file that embeds")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="the column of the texts (text)")
    parser.add_argument(
        "--id", default="id", metavar="COLUMN", help="the column of the ids (id); without one they are file#row"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each with the model (1)")
    parser.add_argument("--shard-rows", type=int, default=10_000, metavar="N", help="rows of a part at most (10000)")


def run(arguments: argparse.Namespace) -> int:
    """Embed; returns 0 when all parts are written, 130 after Ctrl-C."""
    from hf_gateway.corpus import embed_dataset

    settings = {name: value for name in ("model", "targets") if (value := getattr(arguments, name))}
    try:
        with progress_bar("embedding", counts_bytes=False, wanted=not arguments.json) as show:
            report = embed_dataset(
                arguments.source,
                arguments.out,
                text=arguments.text,
                id=arguments.id,
                workers=arguments.workers,
                shard_rows=arguments.shard_rows,
                chain=arguments.chain,
                config=arguments.config,
                on_part=_part_report(show, json_lines=arguments.json),
                **settings,
            )
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the finished parts are kept: run the same command again to go on\n")
        return 130
    if arguments.json:
        print_json({"out": str(arguments.out), "rows": report.rows, "parts": report.parts, "resumed": report.resumed,
                    "seconds": round(report.seconds, 3)})  # fmt: skip
        return 0
    resumed = f", {quantity(report.resumed, 'part')} of an earlier run" if report.resumed else ""
    sys.stdout.write(
        f"{visible(str(arguments.out))}: {quantity(report.rows, 'row')} in {quantity(report.parts, 'part')}{resumed}, "
        f"{report.seconds:.1f} s\n"
    )
    return 0


def _part_report(show: ShowProgress | None, *, json_lines: bool) -> Callable[[str, int, int], None]:
    """Return what reports each part: a line of JSON on stderr, or the progress bar.

    Args:
        show: moves the bar, where there is one.
        json_lines: whether a program reads along.
    """

    def tell(part: str, rows: int, total: int) -> None:
        if json_lines:
            sys.stderr.write(json.dumps({"part": part, "rows": rows, "of": total}) + "\n")
            sys.stderr.flush()
        elif show is not None:
            show(rows, total)

    return tell
