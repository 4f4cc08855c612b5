"""Checks of a caller's chat arguments, before anything is sent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from hf_gateway.errors import InvalidRequest, did_you_mean

ROLES = ("system", "developer", "user", "assistant", "tool")


def checked_messages(messages: str | Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the messages; a string is one user message. Raises InvalidRequest, naming the message by its index."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Iterable):
        raise InvalidRequest(f"messages is {type(messages).__name__}; pass a text or a list of messages")
    listed = tuple(messages)
    if not listed:
        raise InvalidRequest("there are no messages, so there is nothing to answer")
    for index, message in enumerate(listed):
        if fault := _fault_of(message):
            raise InvalidRequest(f"message {index} of {len(listed)} {fault}; nothing was sent")
    return listed


def _fault_of(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return f"is {type(message).__name__}, not a mapping with role and content"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        return f"has the role {role!r}{did_you_mean(str(role), set(ROLES))}"
    if role == "tool" and not message.get("tool_call_id"):
        return "answers a tool call and does not say which: it has no tool_call_id"
    if content is None:
        return None if role == "assistant" else "has no content"
    if not isinstance(content, str | list | tuple):
        return f"has content of type {type(content).__name__}; it is text, or a list of parts"
    for part in (content,) if isinstance(content, str) else content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(part, str) and (not isinstance(part, Mapping) or "type" not in part):
            return "has a part without a type; write {'type': 'text', 'text': ...}"
        if isinstance(text, str) and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return (
                    f"has a lone surrogate at character {error.start}, which no encoding can represent; "
                    "clean it with text.encode('utf-8', 'replace').decode()"
                )
    return None


def checked_tools(tools: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the tools. Raises InvalidRequest, naming the tool by its index, for one that is not in OpenAI's form."""
    if isinstance(tools, Mapping | str) or not isinstance(tools, Iterable):
        raise InvalidRequest(f"tools is {type(tools).__name__}; pass a list of tools in OpenAI's form")
    listed = tuple(tools)
    for index, tool in enumerate(listed):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequest(
                f"tool {index} of {len(listed)} is not in OpenAI's form: "
                "{'type': 'function', 'function': {'name': ..., 'parameters': ...}}"
            )
    return listed


def checked_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> str | Mapping[str, Any] | None:
    """Return a tool choice in OpenAI's form. Raises InvalidRequest.

    Args:
        choice: OpenAI's values; True and "any" mean "required", a tool's name means that tool.
        tools: the tools to choose from.
    """
    if choice is None or choice is False:
        return None
    names = {tool["function"]["name"] for tool in tools}
    if choice is True or choice == "any":
        choice = "required"
    if choice in ("auto", "none", "required") if isinstance(choice, str) else False:
        if choice == "required" and not names:
            raise InvalidRequest("tool_choice asks for a tool call, and there are no tools")
        return choice if names else None
    name = choice if isinstance(choice, str) else None
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"tool_choice is 'auto', 'none', 'required', 'any' or the name of a tool, not {choice!r}")
    if name not in names:
        raise InvalidRequest(
            f"tool_choice names {name!r}, and there is no such tool{did_you_mean(name, names) if names else ''}"
        )
    return {"type": "function", "function": {"name": name}}


def checked_format(wanted: Any) -> Mapping[str, Any] | None:
    """Return a response format. Raises InvalidRequest for one that is not in OpenAI's form."""
    if wanted is None:
        return None
    kind: Literal["text", "json_object", "json_schema"] | Any = (
        wanted.get("type") if isinstance(wanted, Mapping) else None
    )
    if kind == "json_schema" and isinstance(wanted.get("json_schema"), Mapping) and "schema" in wanted["json_schema"]:
        return wanted  # type: ignore[no-any-return]
    if kind in ("text", "json_object"):
        return wanted  # type: ignore[no-any-return]
    raise InvalidRequest(
        "response_format is {'type': 'json_object'} or {'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}"
    )
