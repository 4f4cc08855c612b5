"""`hf-gateway browser-runtime`: fetch what runs models in a browser, which the server then serves to its page."""

import argparse
import dataclasses

from hf_gateway.cli.output import console, print_json
from hf_gateway.errors import visible
from hf_gateway.values.wording import quantity

TAKES_A_CHAIN = False
"""It is about the server's page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Fetch the files, unless they are here, and print where they are; return 0."""
    from hf_gateway.engines.browser_runtime import LICENSES, RUNTIME, fetch
    from hf_gateway.hub.compatibility import format_bytes

    fetched = fetch(RUNTIME)
    if arguments.json:
        print_json({"runtime": RUNTIME.name, **dataclasses.asdict(fetched), "path": str(fetched.path)})
        return 0
    out = console()
    did = "fetched" if fetched.downloaded else "here already"
    out.print(f"{RUNTIME.name}: {quantity(fetched.files, 'file')}, {format_bytes(fetched.bytes)}, {did}", markup=False)
    out.print(f"hashes checked; licences of what it contains: {LICENSES}", markup=False)
    out.print(visible(str(fetched.path)), markup=False)
    return 0
