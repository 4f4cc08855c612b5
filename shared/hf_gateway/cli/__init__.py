"""The command `hf-gateway`. Exit codes: 0 fine, 1 failed, 2 used wrongly, 130 interrupted."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from hf_gateway._version import __version__
from hf_gateway.errors import ConfigError, GatewayError, visible

COMMANDS = {
    "quickstart": "index documents and ask them, through LangChain and LlamaIndex",
    "doctor": "for every target: does it need a key, is there one, does it answer, what to do",
    "chat": "ask a model, and see the answer as it comes and who gave it",
    "verify": "find out whether the targets of a chain are one vector space, and if not, what differs",
    "embed": "embed texts, one JSON object a line",
    "models": "what models cost: list, refresh from the router, set by hand",
    "budgets": "what tenants may spend in a day or a month: list, set, remove",
    "usage": "what was called, what it cost, how long it took and what went wrong, from the ledger",
    "hub": "search the Hub, check a model before it is downloaded, download it, publish an adapter",
    "login": "keep a token in the keyring of the operating system",
    "logout": "take a token out of the keyring",
    "whoami": "say which token is in force, whose it is and what it may do",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(keys_expected="login" in words)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        code: int = import_module(f"hf_gateway.cli.{arguments.command}").run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this the interpreter complains once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        sys.stderr.write(f"hf-gateway: {visible(str(error), lines=True)}\n")
        return 2
    except (GatewayError, ImportError, OSError) as error:
        sys.stderr.write(f"hf-gateway: {visible(str(error), lines=True)}\n")
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser whose errors quote what was typed, but no token; where a key is expected, nothing at all."""

    keys_expected = False

    def error(self, message: str) -> NoReturn:
        """Say it and exit with 2."""
        if self.keys_expected:
            # Keys of other servers have no form that they could be known by.
            message = (
                "there is no such option, or not with such a value (it is not repeated here, as it may be a key; keys do not "
                "belong on the command line)"
            )
        super().error(re.sub(r"hf_\w{8,}", "hf_***", message))


def _parser(*, keys_expected: bool = False) -> argparse.ArgumentParser:
    parser = _Parser(prog="hf-gateway", description="Any Hugging Face model, from wherever it can be had.")
    parser.keys_expected = keys_expected
    parser.add_argument("--version", action="version", version=f"hf-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, told in COMMANDS.items():
        module = import_module(f"hf_gateway.cli.{name}")
        command = commands.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        command.keys_expected = name == "login"
        if not getattr(module, "TAKES_A_CHAIN", True):
            module.add_arguments(command)
            continue
        command.add_argument("--model", help="Hub id of the model, or a folder")
        command.add_argument("--targets", help="where to go, in this order, with commas: tei:http://tei:8080,local")
        command.add_argument("--config", metavar="FILE", help="the hf-gateway.toml to read")
        command.add_argument("--json", action="store_true", help="print JSON for machines")
        module.add_arguments(command)
    return parser
