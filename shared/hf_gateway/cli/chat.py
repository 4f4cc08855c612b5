"""`hf-gateway chat`: send a prompt, and print the answer as it arrives and which target gave it."""

import argparse
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from hf_gateway.cli.chosen_gateway import gateway_of
from hf_gateway.cli.output import console, escape_unencodable, print_json, stdin_text
from hf_gateway.errors import ConfigError, visible
from hf_gateway.tasks.chat.gateway import ChatGateway
from hf_gateway.values.chat import ChatEvent, ChatResult, Message
from hf_gateway.values.usage import Usage
from hf_gateway.values.wording import quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="the prompt; by default all of stdin")
    parser.add_argument("--system", help="system message before the prompt")
    parser.add_argument("--chain", help="a chain of the config file; --model and --targets replace its own")
    parser.add_argument("--temperature", type=float, help="sampling temperature; 0 for the most likely answer")
    parser.add_argument("--max-tokens", type=int, help="maximum tokens of the answer")
    parser.add_argument("--timeout", type=float, help="seconds for the whole request")


def run(arguments: argparse.Namespace) -> int:
    """Print the answer on stdout, and which target gave it on stderr; with --json both as one document."""
    messages = _messages(arguments)
    with _announce_once(), _gateway(arguments) as gateway:
        if arguments.json:
            print_json(dataclasses.asdict(gateway.chat(messages)))
            return 0
        with gateway.stream(messages) as stream:
            show = AnswerPrinter()
            try:
                for event in stream:
                    show.piece(event)
            finally:
                show.end()
        _print_served_by(stream.result)
    return 0


@contextlib.contextmanager
def _announce_once() -> Iterator[None]:
    """Silence the gateway's log: failed targets are shown at the end."""
    logger = logging.getLogger("hf_gateway.gateway")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _messages(arguments: argparse.Namespace) -> list[Message]:
    prompt = " ".join(arguments.prompt)
    if not prompt:
        if sys.stdin.isatty():
            sys.stderr.write("type the prompt, and end it with Ctrl-D\n")
        prompt = stdin_text()
    if not prompt.strip():
        raise ConfigError("the prompt is empty: hf-gateway chat 'your question', or pipe it in")
    before: list[Message] = [{"role": "system", "content": arguments.system}] if arguments.system else []
    return [*before, {"role": "user", "content": prompt}]


def _gateway(arguments: argparse.Namespace) -> ChatGateway:
    changes = {name: getattr(arguments, name) for name in ("temperature", "max_tokens", "timeout")}
    return gateway_of(ChatGateway, arguments, changes)


class AnswerPrinter:
    """Prints an answer as it arrives: the text to stdout, the reasoning, dimmed, to stderr if it is a terminal."""

    def __init__(self) -> None:
        self._reasoning_console = console(stderr=True) if sys.stderr.isatty() and find_spec("rich") else None
        self._thinking = False
        self._last = "\n"
        self._held = ""
        escape_unencodable(sys.stdout)

    def piece(self, event: ChatEvent) -> None:
        """Print one event of a streamed answer."""
        if event.reasoning and self._reasoning_console is not None:
            self._thinking = True
            self._reasoning_console.print(event.reasoning, style="dim", end="", markup=False)
        if event.text:
            self._break()
            text = self._held + event.text
            # A carriage return may be the first half of a line break, which the next event completes.
            self._held = "\r" if text.endswith("\r") else ""
            self._write(text.removesuffix("\r") if self._held else text)

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(visible(text, lines=True))
            sys.stdout.flush()
            self._last = text[-1]

    def end(self) -> None:
        """Complete the last line."""
        self._break()
        if self._last != "\n":
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _break(self) -> None:
        if self._thinking and self._reasoning_console is not None:
            self._reasoning_console.print()
        self._thinking = False


def _print_served_by(result: ChatResult) -> None:
    for attempt in result.attempts:
        if attempt.outcome != "served":
            sys.stderr.write(
                f"{visible(attempt.target)} {attempt.outcome}: {visible(attempt.error or '', lines=True)}\n"
            )
    parts = [
        f"{visible(result.model or 'the model')} by {visible(result.served_by)}",
        f"through {visible(result.provider)}" if result.provider else "",
        ", ".join(_tokens(result.usage)),
        f"first after {result.first_content_seconds:.2f} s" if result.first_content_seconds is not None else "",
        f"{result.seconds:.2f} s in all",
        "cut at max_tokens" if result.finish_reason == "length" else "",
        *map(visible, result.notes),
    ]
    sys.stderr.write(", ".join(part for part in parts if part) + "\n")


def _tokens(usage: Usage) -> Iterator[str]:
    if usage.input_tokens is not None:
        yield f"{quantity(usage.input_tokens, 'token')} in"
    if usage.output_tokens is not None:
        yield f"{usage.output_tokens if usage.input_tokens is not None else quantity(usage.output_tokens, 'token')} out"
