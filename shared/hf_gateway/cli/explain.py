"""`hf-gateway explain`: what an error means, what the chain does about it, and what to do."""

import argparse
import inspect
import re
import textwrap
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import import_module, resources

from hf_gateway._version import DOCUMENTATION_URL
from hf_gateway.cli.output import console, print_json
from hf_gateway.errors import AllTargetsFailed, GatewayError, InvalidRequest, did_you_mean

TAKES_A_CHAIN = False
_WIDTH_CHARS = 100


@cache
def explanations() -> Mapping[str, Mapping[str, str]]:
    """Return `causes` and `advice` by the name of the error, and `module` for a class that is not in `hf_gateway.errors`."""
    return tomllib.loads(resources.files("hf_gateway.cli").joinpath("explanations.toml").read_text("utf-8"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("error", nargs="?", metavar="ERROR", help="name of the error; without one, all are listed")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print one page, or a line for each error."""
    if arguments.error is None:
        summaries = {name: summary_of(name) for name in explanations()}
        if arguments.json:
            print_json(summaries)
            return 0
        width = max(map(len, summaries))
        for name, summary in summaries.items():
            console().print(f"{name:<{width}}  {summary}", markup=False)
        return 0
    page = page_of(find_error(arguments.error))
    if arguments.json:
        print_json(page)
        return 0
    out = console()
    out.print(page["error"], markup=False)
    for title in ("meaning", "causes", "advice", "behaviour", "address"):
        if page[title]:
            out.print()
            out.print(f"{title}:", markup=False)
            for line in textwrap.wrap(page[title], _WIDTH_CHARS, break_on_hyphens=False):
                out.print(f"  {line}", markup=False)
    return 0


def find_error(text: str) -> str:
    """Return the name of an error from how a user writes it.

    That is `KeyMissing`, `keymissing`, a line that a program printed with the name in it, or the `code` of the server's answer.

    Raises:
        InvalidRequest: there is no such error; names the nearest.
    """
    name = text.partition(":")[0].strip().rpartition(".")[2]
    lower = {each.lower(): each for each in explanations()} | {"embeddingunavailable": "Unavailable"}
    if name.lower() in lower:
        return lower[name.lower()]
    # LangChain's door adds the framework's class to the name, as in AllTargetsFailed_ModelAPIError.
    words = [*re.findall(r"[A-Z][A-Za-z]+", text), *re.findall(r"[a-z]+(?:_[a-z]+)+", text)]
    codes = _codes() if any("_" in word for word in words) else {}
    for word in words:
        if word.lower() in lower:
            return lower[word.lower()]
        if word in codes:
            return codes[word]
    raise InvalidRequest(f"there is no error {name[:80]!r}{did_you_mean(name, set(explanations()))}")


def _codes() -> Mapping[str, str]:
    """Return the errors' names by the codes of the server's answers; none where the server is not installed."""
    try:
        from hf_gateway.server.problems import ALL_FAILED, STATUSES
    except ImportError:
        return {}
    found = {code: kind.__name__ for kind, _, code in reversed(STATUSES) if kind.__name__ in explanations()}
    return {**found, ALL_FAILED[1]: AllTargetsFailed.__name__}


def error_class(name: str) -> type[GatewayError]:
    """Return the class of an error that is explained."""
    found: type[GatewayError] = getattr(import_module(explanations()[name].get("module", "hf_gateway.errors")), name)
    return found


def summary_of(name: str) -> str:
    """Return the first line of the docstring of an error."""
    return (inspect.getdoc(error_class(name)) or "").partition("\n")[0]


def page_of(name: str) -> dict[str, str]:
    """Return the parts of an error's page; `address` is empty while the documentation has no public address."""
    written = explanations()[name]
    return {
        "error": name,
        "meaning": summary_of(name),
        "causes": " ".join(written["causes"].split()),
        "advice": " ".join(written["advice"].split()),
        "behaviour": behaviour_of(error_class(name)),
        "address": f"{DOCUMENTATION_URL}/errors/{name}/" if DOCUMENTATION_URL else "",
    }


def behaviour_of(kind: type[GatewayError]) -> str:
    """Return what the chain does after such an error, by the flags of its class."""
    parts = [
        "the same target is asked once more" if kind.retries else "the same target is not asked again",
        "the next target is tried" if kind.try_next else "no other target is tried",
    ]
    if kind.waits:
        parts.append("the target rests until the time that it asked for")
    if kind.counts:
        parts.append("it counts against the target (circuit breaker)")
    return "; ".join(parts) + "."
