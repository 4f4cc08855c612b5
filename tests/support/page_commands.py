"""Commands of pages: what they name is there, and is taken so. Some are whole, some are only named in a sentence."""

import argparse
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from hf_gateway.cli import COMMANDS, _parser
from tests.config_pages import ROOT

CLIENT = ROOT / "web" / "client"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ELSEWHERE = {"docker", "helm", "kubectl", "podman"}
"""Programs whose commands tests/deploy/test_page.py runs."""
FOREIGN = {"ollama", "export"}
_PATH = tuple(sys.path)
"""Before any test: OpenVINO adds its tools to it, among them a `benchmark`."""
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_PLACEHOLDER = re.compile(r"…|\[.*\]|[A-Z_]+|\S*[|]\S*")


def sentences(text: str) -> Iterator[str]:
    """Yield the commands of a page outside its blocks: in backticks within sentences and lists, and in lines of their own."""
    text = _FENCE.sub("", text)
    yield from re.findall(r"`([^`\n]+)`", text)
    yield from re.findall(r"^    (\S.*)$", text, re.MULTILINE)


def program(line: str) -> str | None:
    """Return the program that a line begins with, as far as it is one of those that are looked at."""
    first = Path(line.split()[0]).name if line.split() else ""
    known = {"hf-gateway", "make", "python", "pip", "npm", "node", "pre-commit", *ELSEWHERE}
    return first if first in known and " " in line else None


def assert_named(line: str) -> None:
    """Check a command of a sentence: the program's own command and its options exist; arguments may be left out."""
    name = program(line)
    words = shlex.split(line.partition(" #")[0].partition(" > ")[0])[1:]
    if name == "hf-gateway":
        _assert_options(words)
    elif name == "make":
        for word in words:
            assert "=" in word or re.search(rf"^{word}:", MAKEFILE, re.MULTILINE), f"make has no {word}"
    elif name == "python":
        _assert_module(words)
    elif name == "pip":
        _assert_extras(line)
    elif name == "npm":
        _assert_npm(words)
    elif name == "node":
        assert (CLIENT / words[0]).is_file(), words[0]
    elif name == "pre-commit":
        assert (ROOT / ".pre-commit-config.yaml").is_file()


def assert_whole(line: str) -> None:
    """Check a command of a block: what is in it of `hf-gateway` is taken as it stands, with all that it needs."""
    for found in re.findall(r"hf-gateway( [a-z][^#>&)\n]*)", re.sub(r'"hf-gateway\[.*?"', "", line)):
        _parser(COMMANDS).parse_args(shlex.split(found))
    for part in line.partition("#")[0].split("&&"):
        if program(part.strip()) not in (None, "hf-gateway"):
            assert_named(part.strip())


def _assert_options(words: list[str]) -> None:
    parser: argparse.ArgumentParser = _parser(COMMANDS)
    waits = True
    for word in words:
        subparsers = next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)
        if word.startswith("-"):
            assert word.partition("=")[0].strip("[]") in parser._option_string_actions, f"{parser.prog} has no {word}"
        elif subparsers is not None and waits and not _PLACEHOLDER.fullmatch(word):
            assert word in subparsers.choices, f"{parser.prog} has no {word}"
            parser = subparsers.choices[word]
        else:
            waits = False


def _assert_module(words: list[str]) -> None:
    if words[0] != "-m":
        return
    assert PathFinder.find_spec(words[1].partition(".")[0], _PATH) is not None, words[1]
    assert find_spec(words[1]) is not None, words[1]
    if words[1] == "benchmarks":
        from benchmarks.__main__ import BENCHMARKS

        assert {word for word in words[2:] if not word.startswith("-")} <= set(BENCHMARKS)


def _assert_extras(line: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for found in re.findall(r"hf-gateway\[(.*?)\]", line):
        assert set(found.split(",")) <= extras.keys(), found


def _assert_npm(words: list[str]) -> None:
    """A script has to be there, and `npm ci` needs a lock; tests/web_client runs them, without a network."""
    if words[0] == "run":
        assert words[1] in json.loads((CLIENT / "package.json").read_text(encoding="utf-8"))["scripts"]
    elif words[0] == "ci":
        assert (CLIENT / "package-lock.json").is_file()
    else:
        assert words[0] in ("install", "pack"), words[0]
