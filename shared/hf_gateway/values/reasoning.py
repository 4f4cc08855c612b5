"""The thoughts of earlier answers, on their way back to the model that had them."""

from collections.abc import Mapping, Sequence
from typing import Any

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Under which names servers and templates know the thoughts of an assistant's message; the first is ours."""


def with_reasoning(
    messages: Sequence[Mapping[str, Any]], name: str | None, *, missing: str = ""
) -> list[dict[str, Any]]:
    """Return messages with the thoughts of those turns in which tools were called, and without all others.

    Models that think between calls need them again, and several servers refuse such a call without them, also in later turns;
    the thoughts behind a mere answer are read by no model (api-docs.deepseek.com/guides/thinking_mode).

    Args:
        messages: the conversation, which stays as it is.
        name: under which name the server takes thoughts; None for a server that takes none.
        missing: what to send for a message that should have thoughts and has none.
    """
    made: list[dict[str, Any]] = []
    turn: list[tuple[dict[str, Any], str]] = []

    def end_turn() -> None:
        if name is not None and any(message.get("tool_calls") for message, _ in turn):
            for message, thoughts in turn:
                if said := thoughts or missing:
                    message[name] = said
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
    """Return the thoughts of a message, by whichever name they stand in it; "" for none."""
    found = next((said for name in REASONING_FIELDS if isinstance(said := message.get(name), str) and said), "")
    # What a model thought may end in half a character, which no server could read.
    return found if found.isascii() else found.encode("utf-8", "replace").decode()
