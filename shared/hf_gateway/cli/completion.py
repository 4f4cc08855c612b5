"""`hf-gateway completion SHELL`: print the completion of this command for a shell.

The scripts are files of the package, made from the commands' own arguments: nothing is imported to complete a word.
"""

import argparse
import sys
from importlib import resources

from hf_gateway.cli.output import escape_unencodable, print_json

TAKES_A_CHAIN = False
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    script = (
        resources.files("hf_gateway.cli").joinpath("completions", f"hf-gateway.{arguments.shell}").read_text("utf-8")
    )
    if arguments.json:
        print_json({"shell": arguments.shell, "script": script})
    else:
        escape_unencodable(sys.stdout)
        sys.stdout.write(script)
    return 0
