"""Sends the reasoning of earlier answers back to the model."""

from collections.abc import Mapping, Sequence
from typing import Any

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names that servers and templates have for the reasoning of an assistant's message; the first is ours."""


def with_reasoning(
    messages: Sequence[Mapping[str, Any]], name: str | None, *, missing: str = ""
) -> list[dict[str, Any]]:
    """Return messages with the reasoning of those turns in which tools were called, and without all other reasoning.

    Models that think between calls need it again, and several servers refuse such a call without it, also in later turns; the
    reasoning of an answer without calls is read by no model (api-docs.deepseek.com/guides/thinking_mode).

    Args:
        messages: the conversation; not modified.
        name: the server's name for reasoning; None for a server that does not accept it.
        missing: what to send for a message that should have reasoning and has none.
    """
    made: list[dict[str, Any]] = []
    turn: list[tuple[dict[str, Any], str]] = []

    def end_turn() -> None:
        if name is not None and any(message.get("tool_calls") for message, _ in turn):
            for message, reasoning in turn:
                if sent := reasoning or missing:
                    message[name] = sent
        turn.clear()

    for message in messages:
        plain = {key: value for key, value in message.items() if key not in REASONING_FIELDS}
        made.append(plain)
        if message["role"] == "user":
            end_turn()
        elif message["role"] == "assistant":
            turn.append((plain, reasoning_of(message)))
    end_turn()
    return made


def reasoning_of(message: Mapping[str, Any]) -> str:
    """Return the reasoning of a message, under whichever name it has; "" if it has none."""
    found = next((text for name in REASONING_FIELDS if isinstance(text := message.get(name), str) and text), "")
    # Reasoning that was cut off may end in half a surrogate pair, which no server could read.
    return found if found.isascii() else found.encode("utf-8", "replace").decode()
