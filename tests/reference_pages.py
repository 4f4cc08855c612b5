"""Writes what is made from commands, errors, metrics and variables: pages, `.env.example` and the shells' completions.

`python -m tests.reference_pages` writes them; tests/project/test_reference_pages.py compares them.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from hf_gateway.cli import COMMANDS, _parser
from hf_gateway.cli.explain import behaviour_of, error_class, explanations, page_of
from hf_gateway.configuration.variables import variables
from tests.config_pages import END, ROOT, cell

BEGIN = "<!-- made by python -m tests.reference_pages -->\n"
COMPLETIONS = ROOT / "shared" / "hf_gateway" / "cli" / "completions"
ERRORS = ROOT / "docs" / "errors"
PROGRAM = "hf-gateway"


def errors_page(page: str) -> str:
    return _within(page, _errors())


def commands_page(page: str) -> str:
    return _within(page, _commands())


def metrics_page(page: str) -> str:
    """Return docs/metrics.md, which has two made parts: for Prometheus, and for OpenTelemetry."""
    before, _, after = page.partition("\n## OpenTelemetry\n")
    from tests.metrics_reference import otel_lines, prometheus_lines  # which loads the libraries that count

    return f"{_within(before, prometheus_lines())}\n## OpenTelemetry\n{_within(after, otel_lines())}"


def _within(page: str, lines: Iterator[str]) -> str:
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


def _errors() -> Iterator[str]:
    yield "\n| error | |\n|---|---|"
    yield from (f"| [{name}](errors/{name}.md) | {cell(page_of(name)['meaning'])} |" for name in explanations())


def error_file(name: str) -> str:
    """Return the page of one error."""
    page, kind = page_of(name), error_class(name)
    parents = [each.__name__ for each in kind.__mro__[1:] if each.__name__ in explanations()]
    children = [each for each in explanations() if kind in error_class(each).__bases__]
    lines = [
        f"# {name}\n\n{page['meaning']}\n",
        f"- **Where it comes from.** {page['causes']}",
        f"- **What to do.** {page['advice']}",
        f"- **What the chain does.** {behaviour_of(kind).capitalize()}",
    ]
    for title, others in (("Also caught as", parents), ("Catches", children)):
        if others:
            lines.append(f"- **{title}** {', '.join(f'[{each}]({each}.md)' for each in others)}.")
    lines.append(
        f"\n`{kind.__module__}.{name}`; `{PROGRAM} explain {name}` prints this page. [All errors](../errors.md)"
    )
    return "\n".join(lines) + "\n"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _commands() -> Iterator[str]:
    parsers = subparsers(_parser())
    yield "\n| command | |\n|---|---|"
    yield from (f"| [`{name}`](#{PROGRAM}-{name}) | {cell(summary)} |" for name, summary in COMMANDS.items())
    for name, parser in parsers.items():
        yield f"\n### {PROGRAM} {name}\n\n{parser.description}"
        yield from _options(parser)
        for action, below in subparsers(parser).items():
            yield f"\n**`{PROGRAM} {name} {action}`**: {below.description}"
            yield from _options(below)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    rows = [row for action in parser._actions if (row := _row(action))]
    if rows:
        yield "\n| argument | |\n|---|---|"
        yield from rows


def _row(action: argparse.Action) -> str | None:
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
        return None
    value = "" if action.nargs == 0 else _value(action)
    name = ", ".join(action.option_strings)
    shown = f"`{name}{' ' if name and value else ''}{value}`"
    return f"| {shown} | {cell((action.help or '').replace('%%', '%'))} |"


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices:
        return "\\|".join(map(str, action.choices))
    return action.dest.upper()


def env_example() -> str:
    """Return `.env.example`: every variable, each with what it sets, none set."""
    lines = [
        "# Variables of hf-gateway, for `hf-gateway --env-file .env COMMAND`. Copy this file to .env and keep that out of git.",
        "# A variable that the environment has already goes before the file.",
    ]
    for each in variables():
        lines += ["", f"# {each.about}", f"#{each.name}="]
    return "\n".join(lines) + "\n"


def bash() -> str:
    return _by_shtab("bash")


def zsh() -> str:
    return _by_shtab("zsh")


def _by_shtab(shell: str) -> str:
    import shtab

    made: str = shtab.complete(_parser(), shell=shell)
    return "\n".join(line.rstrip() for line in made.splitlines()) + "\n"


def fish() -> str:
    """Return the completions for fish, which shtab does not write."""
    parser = _parser()
    lines = [
        f"# Completion of {PROGRAM} for fish; made by python -m tests.reference_pages.",
        f"complete -c {PROGRAM} -f",
    ]
    for name, summary in COMMANDS.items():
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {name} -d {_quoted(summary)}")
    for name, command in subparsers(parser).items():
        inside = f"'__fish_seen_subcommand_from {name}'"
        for action, below in subparsers(command).items():
            lines.append(f"complete -c {PROGRAM} -n {inside} -a {action} -d {_quoted(below.description or '')}")
        options = [*command._actions, *(each for below in subparsers(command).values() for each in below._actions)]
        lines += dict.fromkeys(_fish_option(inside, action) for action in options if action.option_strings)
    return "\n".join(lines) + "\n"


def _fish_option(inside: str, action: argparse.Action) -> str:
    names = " ".join(f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in action.option_strings)
    value = (
        ""
        if action.nargs == 0
        else " -r" + (f" -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else " -F")
    )
    return f"complete -c {PROGRAM} -n {inside} {names}{value} -d {_quoted((action.help or '').replace('%%', '%'))}"


def _quoted(text: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"


PAGES: Mapping[Path, Callable[[str], str]] = {
    ROOT / "docs" / "errors.md": errors_page,
    ROOT / "docs" / "commands.md": commands_page,
    ROOT / "docs" / "metrics.md": metrics_page,
}
FILES: Mapping[Path, Callable[[], str]] = {
    ROOT / ".env.example": env_example,
    COMPLETIONS / f"{PROGRAM}.bash": bash,
    COMPLETIONS / f"{PROGRAM}.zsh": zsh,
    COMPLETIONS / f"{PROGRAM}.fish": fish,
    **{ERRORS / f"{name}.md": partial(error_file, name) for name in explanations()},
}

if __name__ == "__main__":
    for folder in (COMPLETIONS, ERRORS):
        folder.mkdir(exist_ok=True)
    for path, text_of in PAGES.items():
        path.write_text(text_of(path.read_text("utf-8")), "utf-8")
    for path, text in FILES.items():
        path.write_text(text(), "utf-8")
