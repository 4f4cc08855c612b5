"""`hf-gateway logout`: take a token out of the keyring of the operating system."""

import argparse
import os

from hf_gateway.cli.login import add_origin, origin
from hf_gateway.cli.output import console, print_json
from hf_gateway.credentials import HUB, TOKEN_VARIABLES, origin_of

TAKES_A_CHAIN = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_origin(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--all", action="store_true", help="the keys of all origins")


def run(arguments: argparse.Namespace) -> int:
    """Erase; 0 when there is none any more, also where there was none."""
    from hf_gateway import keyring_store

    known = [each.origin for each in keyring_store.stored()]
    wanted = known if arguments.all else [origin(arguments)]
    # Without a file that tells of it, nothing of ours can be there, and a machine without a keyring need not complain.
    erased = [each for each in wanted if each in known and keyring_store.erase(each)]
    left = _left_over() if origin_of(HUB) in wanted else []
    if arguments.json:
        print_json({"erased": erased, "still": left})
        return 0
    out = console()
    for each in wanted:
        out.print(f"{each}: {'erased from the keyring' if each in erased else 'nothing was stored'}", markup=False)
    if not wanted:
        out.print("nothing was stored")
    for each in left:
        out.print(f"  a token is still found in {each}", markup=False)
    return 0


def _left_over() -> list[str]:
    """Name the other places where a Hugging Face token is found."""
    from huggingface_hub import get_token

    found = [f"the environment variable {name}" for name in TOKEN_VARIABLES if os.environ.get(name, "").strip()]
    return found or (["`hf auth login` (end it with `hf auth logout`)"] if get_token() else [])
