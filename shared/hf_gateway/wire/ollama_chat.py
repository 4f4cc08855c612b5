"""Ollama's native `/api/chat`: options, tools, thinking, JSON per line (github.com/ollama/ollama, docs/openapi.yaml)."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hf_gateway.errors import BadResponse, InvalidRequest, ModelLoading, ModelNotFound
from hf_gateway.values.chat import ChatEvent, ChatRequest, Message, ToolCallDelta, with_json_instruction
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.reasoning import with_reasoning
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.wire.classify import classify_inside
from hf_gateway.wire.http import post_json, read_json
from hf_gateway.wire.sse import Lines, parse_event

MAX_HEAD_CHARS = 10_000
"""Characters of an answer after which the name of the called tool is not looked for any more; names have some dozens."""
# Ours → Ollama's (api/types.go, Options).
OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "max_tokens": "num_predict",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repeat_penalty",
}

OWN_OPTIONS = frozenset(
    {"mirostat", "mirostat_eta", "mirostat_tau", "min_p", "num_batch", "num_ctx", "num_gpu", "num_keep", "num_predict"}
    | {"num_thread", "penalize_newline", "repeat_last_n", "repeat_penalty", "tfs_z", "top_k", "typical_p", "use_mmap"}
)
"""Fields of `extra_body` that are options of Ollama's; it has no fields of other servers."""


def encode_chat(
    url: str,
    model: str,
    request: ChatRequest,
    *,
    target: str,
    keep_alive: str | float | None = None,
    options: Mapping[str, Any] | None = None,
    send_reasoning: bool = True,
) -> HttpRequest:
    """Build `POST /api/chat`. `truncate` is always sent: by default the server drops old messages silently.

    Ollama has no tool_choice. "none" leaves the tools out; a tool that must be called is requested as an answer in its JSON
    schema, which the server's grammar enforces, and `ForcedCall` reads it as a call. The same grammar would forbid tool calls,
    so if tools may be called and the answer must match a schema, the system message asks for the schema instead.

    Args:
        url: the server's base URL.
        model: the model's name there.
        request: the caller's request.
        target: label for errors.
        keep_alive: how long the model stays loaded, in Ollama's form.
        options: the server's own options, by name.
        send_reasoning: whether earlier reasoning is sent back.

    Raises:
        ModelNotFound: an image is given by URL, which Ollama does not fetch.
    """
    sampling = request.sampling
    own = {name: value for name, value in (sampling.extra_body or {}).items() if name in OWN_OPTIONS}
    own |= {theirs: value for ours, theirs in OPTIONS.items() if (value := getattr(sampling, ours)) is not None}
    if request.stop:
        own["stop"] = request.stop
    messages: Sequence[Message] = with_reasoning(request.messages, "thinking" if send_reasoning else None)
    tools = () if request.tool_choice == "none" else request.forced_tools or request.tools
    wanted = _format(request)
    if wanted is not None and tools and not request.forced_tools:
        messages, wanted = with_json_instruction(messages, request.json_schema or {}), None
    payload: dict[str, Any] = {
        "model": model,
        "messages": _messages(messages, target),
        "stream": request.stream,
        "truncate": False,
    }
    if tools:
        payload["tools"] = list(tools)
    if wanted is not None:
        payload["format"] = wanted
    if sampling.reasoning_effort is not None:
        payload["think"] = False if sampling.reasoning_effort == "none" else sampling.reasoning_effort
    for name in ("logprobs", "top_logprobs"):
        if (value := getattr(sampling, name)) is not None:
            payload[name] = value
    if merged := {**(options or {}), **own}:
        payload["options"] = merged
    if keep_alive is not None:
        payload["keep_alive"] = keep_alive
    return post_json(f"{url}/api/chat", payload)


def _format(request: ChatRequest) -> Any:
    if forced := request.forced_tools:
        if len(forced) == 1:
            return forced[0]["function"].get("parameters") or {"type": "object"}
        return {"anyOf": [_call_schema(tool["function"]) for tool in forced]}
    schema = request.json_schema
    return None if schema is None else schema or "json"


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": function.get("parameters") or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _messages(messages: Sequence[Message], target: str) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # tool_call_id → the tool's name, which Ollama's templates need for a result
    made = []
    for message in messages:
        role = "system" if message["role"] == "developer" else message["role"]
        text, images = _content(message.get("content"), target)
        turned: dict[str, Any] = {"role": role, "content": text}
        if thoughts := message.get("thinking"):
            turned["thinking"] = thoughts
        if images:
            turned["images"] = images
        if calls := message.get("tool_calls"):
            turned["tool_calls"] = [_call(call, names, target) for call in calls]
        if role == "tool":
            turned["tool_call_id"] = message["tool_call_id"]
            if name := message.get("name") or names.get(message["tool_call_id"]):
                turned["tool_name"] = name
        made.append(turned)
    return made


def _call(call: Mapping[str, Any], names: dict[str, str], target: str) -> dict[str, Any]:
    if not _is_call(call):
        raise InvalidRequest("an earlier tool call is not in OpenAI's form: it has no function with a name")
    function = call["function"]
    name, arguments = function["name"], function.get("arguments") or "{}"
    names[call.get("id") or ""] = name
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            raise ModelNotFound(
                f"accepts only JSON objects as arguments, and an earlier call of {name!r} has other ones", target=target
            )
    return {"id": call.get("id") or "", "function": {"name": name, "arguments": arguments}}


def _content(content: Any, target: str) -> tuple[str, list[str]]:
    if content is None or isinstance(content, str):
        return content or "", []
    texts, images = [], []
    for part in content:
        kind = "text" if isinstance(part, str) else part["type"]
        if kind == "text":
            texts.append(_content_of(part if isinstance(part, str) else part.get("text"), kind))
        elif kind == "image_url":
            link = part.get("image_url")
            images.append(_image(_content_of(link.get("url") if isinstance(link, Mapping) else link, kind), target))
        else:
            raise ModelNotFound(f"accepts texts and images, and a message has a part of type {kind!r}", target=target)
    return "\n".join(texts), images


def _content_of(value: Any, kind: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"a message has a part of type {kind!r} without its {kind}")
    return value


def _image(url: str, target: str) -> str:
    found = re.match(r"data:[^,]*;base64,", url)
    if found is None:
        raise ModelNotFound(
            "accepts images as data, not by a URL; put the picture itself into the message", target=target
        )
    return url[found.end() :]


def decode_chat(response: HttpResponse, *, target: str) -> ChatEvent:
    """Read a whole answer. An `error` in the body of a 200 is raised.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    if not isinstance(data, dict):
        raise BadResponse("the answer is not a JSON object; is this Ollama?", target=target)
    return _event(data, target)


class OllamaStreamDecoder:
    """Reads one JSON object per line. finished, done: the line with `done` has arrived."""

    starts: ClassVar[bytes] = b"{"

    def __init__(
        self,
        headers: Mapping[str, str],  # noqa: ARG002 - part of the signature of every stream decoder
        target: str,
        turned: Callable[[ChatEvent], ChatEvent] = lambda event: event,
    ) -> None:
        """headers: of the response; turned: applied to every event."""
        self.finished = False
        self._turned = turned
        self._lines = Lines(target)
        self._target = target

    @property
    def done(self) -> bool:
        """Whether no more events will come."""
        return self.finished

    def feed(self, data: bytes) -> Iterator[ChatEvent]:
        """Decode more bytes; yields events. Raises the error that the stream reports, or BadResponse for an invalid stream."""
        return iter(()) if self.finished else self._read(self._lines.feed(data))

    def end(self) -> Iterator[ChatEvent]:
        """Handle the end of the stream; yields the events of an incomplete last line."""
        return self._read(self._lines.end())

    def _read(self, lines: list[bytes]) -> Iterator[ChatEvent]:
        for line in lines:
            if line.strip() and not self.finished:
                event = _event(parse_event(line, self._target), self._target)
                self.finished = event.finish_reason is not None
                yield self._turned(event)


def _event(data: Mapping[str, Any], target: str) -> ChatEvent:
    if (error := classify_inside(data, target=target)) is not None:
        raise error
    message = data.get("message")
    if not isinstance(message, dict):
        raise BadResponse("the answer has no 'message'; is this Ollama's /api/chat?", target=target)
    done = data.get("done") is True
    if done and data.get("done_reason") == "load" and not message.get("content"):
        raise ModelLoading("it loaded the model and generated nothing", target=target, retry_after=0.0)
    calls = message.get("tool_calls")
    logprobs = data.get("logprobs")
    return ChatEvent(
        _string(message.get("content")) or "",
        _string(message.get("thinking")) or "",
        tuple(_tool_call(call) for call in calls if _is_call(call)) if isinstance(calls, list) else (),
        (_string(data.get("done_reason")) or "stop") if done else None,
        Usage(parse_token_count(data.get("prompt_eval_count")), parse_token_count(data.get("eval_count")))
        if done
        else None,
        _string(data.get("model")),
        _string(data.get("remote_host")),
        logprobs=tuple(logprobs) if isinstance(logprobs, list) else (),
    )


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    return isinstance(function, Mapping) and _string(function.get("name")) is not None


def _tool_call(call: Mapping[str, Any]) -> ToolCallDelta:
    function = call["function"]
    return ToolCallDelta(None, _string(call.get("id")), function["name"], _json(function.get("arguments")))


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


class ForcedCall:
    """Reads an answer in a tool's JSON schema as a call of that tool, piece by piece.

    With one tool the text is its arguments; with several it is {"name": ..., "arguments": {...}}.
    """

    _HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"]+)"\s*,\s*"arguments"\s*:\s*')

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """tools: the tools of which one is called."""
        self._name: str | None = tools[0]["function"]["name"] if len(tools) == 1 else None
        self._single = self._name is not None
        self._told = False
        self._head = ""
        self._held: list[str] = []
        self._held_size = 0

    def read(self, event: ChatEvent) -> ChatEvent:
        """Turn the text of an event into a piece of the call; calls that the server parsed itself are kept."""
        pieces: list[ToolCallDelta] = []
        last, sought = event.finish_reason is not None, self._held_size <= MAX_HEAD_CHARS
        self._held.append(event.text)
        self._held_size += len(event.text)
        # What is held may be long: it is looked at when a piece changes what it means, and blanks change nothing.
        if not last and not event.text.strip():
            return replace(event, text="") if event.text else event
        if self._name is None and sought and (head := self._HEAD.match("".join(self._held))):
            self._name, self._head = head[1], head[0]
            self._hold("".join(self._held)[head.end() :])
        if self._name is not None and not event.tool_calls and (held := "".join(self._held)).strip():
            arguments, kept = self._free(held, last)
            self._hold(kept)
            if not self._told:
                arguments = arguments.lstrip()
            if arguments or not self._told:
                pieces.append(ToolCallDelta(0, None, None if self._told else self._name, arguments))
                self._told = True
        if last and not self._told and not event.tool_calls:
            return replace(event, text=self._head + "".join(self._held))  # not what was asked for, but not hidden
        return replace(event, text="", tool_calls=(*event.tool_calls, *pieces))

    def _hold(self, text: str) -> None:
        self._held, self._held_size = [text] if text else [], len(text)

    def _free(self, held: str, last: bool) -> tuple[str, str]:
        """Return the certain part of the arguments, and what may be the brace around name and arguments."""
        if self._single:
            said = held.rstrip()
            return said, held[len(said) :]
        place = held.rfind("}")
        if place < 0:
            return held, ""
        return held[:place], "" if last else held[place:]
