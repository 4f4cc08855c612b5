"""Ollama's chat and generate: a JSON object a line, or one whole."""

import base64
import binascii
import datetime as dt
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from hf_gateway.server.dispatch.call import Answer, Call, Stream
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.ollama import NS_PER_S, SURFACE, ModelBody, write_problem
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.server.surfaces.openai_chat import MAX_TOOLS_COUNT, SampledBody, finish_reason
from hf_gateway.tasks.chat.streams import AsyncChatStream
from hf_gateway.values.chat import ChatResult, ToolCall
from hf_gateway.values.image_type import SUPPORTED, image_type
from hf_gateway.wire.json import dumps_numbers
from hf_gateway.wire.ollama_chat import OPTIONS

LINES = b"application/x-ndjson"
PING = b" "
"""A blank before the next line, which JSON allows there; an empty line is one too many for clients."""
_OURS = {theirs: ours for ours, theirs in OPTIONS.items()}
"""Ollama's names of options → ours."""
Message = dict[str, Any]


class OllamaFunction(Tolerant):
    """What an earlier tool call calls."""

    name: str
    """The tool."""
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    """Its arguments."""


class OllamaToolCall(Tolerant):
    """An earlier tool call."""

    id: str | None = None
    """Its id, if the client kept it."""
    function: OllamaFunction
    """What it calls."""


class OllamaMessage(Tolerant):
    """A message in Ollama's form."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """Who wrote it."""
    content: str | None = None
    """Its text."""
    thinking: str | None = None
    """The reasoning of an earlier answer."""
    images: list[str] | None = None
    """Images in base64."""
    tool_calls: list[OllamaToolCall] | None = None
    """The tools that an earlier answer called."""
    tool_name: str | None = None
    """The tool whose result it is."""
    tool_call_id: str | None = None
    """The call whose result it is."""


class AnsweredBody(ModelBody):
    """What the bodies of chat and generate have in common."""

    stream: bool | None = None
    """Whether the answer comes line by line; yes unless it is false."""
    format: str | dict[str, Any] | None = None
    """`json`, or the JSON schema that the answer has to match."""
    options: dict[str, Any] | None = None
    """How the answer is sampled; those about loading and the context are ignored."""
    think: bool | str | None = None
    """Whether, or how much, to think before answering."""
    logprobs: bool | None = None
    """Whether to return the log probabilities of the tokens."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many of the most likely tokens at each place to return log probabilities for."""

    def arguments(self, call: Call) -> dict[str, Any]:
        """Return the arguments of the gateway's call. Raises Problem for what this server does not allow."""
        options = {name: value for name, value in (self.options or {}).items() if value is not None}
        given = {ours: _whole_number(options[theirs]) for theirs, ours in _OURS.items() if theirs in options}
        most = given.get("max_tokens")
        if isinstance(most, int | float) and most <= 0:  # -1 and -2 are for no limit
            del given["max_tokens"]
        sampled = SampledBody.model_validate({**given, "stop": options.get("stop") or None})
        found = sampled.arguments(call)
        if sampled.seed is not None:
            found["seed"] = sampled.seed
        if self.think is not None:
            found["reasoning_effort"] = self.think
        if self.logprobs:
            found["logprobs"], found["top_logprobs"] = True, self.top_logprobs
        if wanted := self._response_format():
            found["response_format"] = wanted
        return found

    def _response_format(self) -> dict[str, Any] | None:
        if isinstance(self.format, dict):
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.format}}
        if self.format in (None, ""):
            return None
        if self.format != "json":
            raise Problem(400, "invalid_request", "format is 'json' or a JSON schema", param="format")
        return {"type": "json_object"}


class ChatBody(AnsweredBody):
    """The body of POST /api/chat."""

    messages: list[OllamaMessage] | None = None
    """The conversation; without one, nothing is computed."""
    tools: list[dict[str, Any]] | None = None
    """The tools that the model may call."""


class GenerateBody(AnsweredBody):
    """The body of POST /api/generate."""

    prompt: str | None = None
    """The prompt; without one, nothing is computed."""
    system: str | None = None
    """The system message."""
    images: list[str] | None = None
    """Images in base64."""
    suffix: str | None = None
    """Refused: models for chat do not fill gaps."""
    template: str | None = None
    """Refused: each target has its own."""
    raw: bool | None = None
    """Refused: the prompt is a message."""
    context: list[int] | None = None
    """Refused: send the conversation to /api/chat."""


class AnswerLine(BaseModel):
    """A whole answer, or the last line of one: the others have no counts."""

    model: str
    """What the request named."""
    created_at: str
    """When it was made."""
    done: bool
    """Whether it is the last one."""
    done_reason: str | None = None
    """Why the answer ended: stop, length, load."""
    total_duration: int | None = None
    """Nanoseconds of the whole request."""
    load_duration: int | None = None
    """Always 0."""
    prompt_eval_count: int | None = None
    """Tokens of the request, if they were counted."""
    prompt_eval_duration: int | None = None
    """Nanoseconds until the first content."""
    eval_count: int | None = None
    """Tokens of the answer, if they were counted."""
    eval_duration: int | None = None
    """Nanoseconds from there."""


class ChatAnswer(AnswerLine):
    """The answer of POST /api/chat."""

    message: dict[str, Any]
    """The message: content, thinking, tool calls."""


class GenerateAnswer(AnswerLine):
    """The answer of POST /api/generate."""

    response: str
    """The text."""
    thinking: str | None = None
    """The reasoning."""


Form = Callable[[str, str, Sequence[ToolCall]], dict[str, Any]]
"""Text, reasoning and tool calls → the fields of a line."""


async def chat(call: Call) -> Answer | Stream:
    """Answer a conversation."""
    body: ChatBody = call.parsed
    messages = body.messages or []
    call.check_count(messages, call.settings.max_messages, "messages")
    arguments = body.arguments(call)
    if body.tools:
        call.check_count(body.tools, MAX_TOOLS_COUNT, "tools")
        arguments["tools"] = body.tools
    return await _answer(call, body, openai_messages(messages), arguments, _chat_form)


async def generate(call: Call) -> Answer | Stream:
    """Answer a prompt."""
    body: GenerateBody = call.parsed
    for name in ("suffix", "template", "raw", "context"):
        if getattr(body, name):
            words = "the prompt is one message of a user, in the form that the target's own template gives it"
            raise Problem(400, "unsupported", f"{name} is not supported: {words}", param=name)
    arguments = body.arguments(call)
    messages = []
    if body.prompt or body.images:
        messages = [OllamaMessage(role="user", content=body.prompt, images=body.images)]
        if body.system:
            messages.insert(0, OllamaMessage(role="system", content=body.system))
    return await _answer(call, body, openai_messages(messages), arguments, _generate_form)


async def _answer(
    call: Call, body: AnsweredBody, messages: list[Message], arguments: Mapping[str, Any], form: Form
) -> Answer | Stream:
    chain = call.find_chain(body.model, "chat")
    writer = LineWriter(call, body.model or chain.name, form)
    streamed = body.stream is not False
    if not messages:
        line = writer.line(
            {**form("", "", ()), "done": True, "done_reason": "unload" if body.keep_alive == 0 else "load"}
        )
        return Answer(line, media_type=LINES) if streamed else Answer(line)
    if streamed:
        stream = chain.gateway.astream(messages, **arguments)
        headers = call.serving_headers(stream)
        return Stream(writer.lines(stream), error_line, ping=PING, media_type=LINES, headers=headers)
    return await _whole(call, chain, messages, arguments, writer)


async def _whole(
    call: Call, chain: Chain, messages: list[Message], arguments: Mapping[str, Any], writer: "LineWriter"
) -> Answer:
    result: ChatResult = await chain.gateway.achat(messages, **arguments)
    fields = writer.form(result.text, result.reasoning, result.tool_calls)
    return Answer(writer.line(fields | writer.end(result)), headers=call.served_headers(result))


def error_line(problem: Problem) -> bytes:
    """Return the line of an error, after which none with `done` comes."""
    return write_problem(problem) + b"\n"


class LineWriter:
    """Writes the lines of one answer."""

    def __init__(self, call: Call, model: str, form: Form) -> None:
        """Begin.

        Args:
            call: the request.
            model: what it calls its model.
            form: writes the content of a line.
        """
        self._call, self._model, self.form = call, model, form

    def line(self, fields: Mapping[str, Any]) -> bytes:
        """Return a line with these fields."""
        head = {"model": self._model, "created_at": dt.datetime.now(dt.UTC).isoformat()}
        return dumps_numbers({**head, **fields}) + b"\n"

    async def lines(self, stream: AsyncChatStream) -> AsyncIterator[bytes]:
        """Yield the lines of an answer; tool calls are in one line, whole, before the last one."""
        async with stream:
            async for event in stream:
                if event.text or event.reasoning or event.logprobs:
                    fields = {**self.form(event.text, event.reasoning, ()), "done": False}
                    yield self.line(fields | ({"logprobs": list(event.logprobs)} if event.logprobs else {}))
            result = stream.result
        if result.tool_calls:
            yield self.line({**self.form("", "", result.tool_calls), "done": False})
        yield self.line({**self.form("", "", ()), **self.end(result, streamed=True)})

    def end(self, result: ChatResult, *, streamed: bool = False) -> dict[str, Any]:
        """Return the fields of the end of an answer.

        Args:
            result: the answer.
            streamed: whether its log probabilities were sent before.
        """
        total = int((time.monotonic() - self._call.began) * NS_PER_S)
        first = min(int((result.first_content_seconds or 0.0) * NS_PER_S), total)
        ended = finish_reason(result.finish_reason)
        found: dict[str, Any] = {
            "done": True,
            "done_reason": "length" if ended == "length" else "stop",
            "total_duration": total,
            "load_duration": 0,
            "prompt_eval_count": result.usage.input_tokens,
            "prompt_eval_duration": first,
            "eval_count": result.usage.output_tokens,
            "eval_duration": total - first,
        }
        if result.logprobs and not streamed:
            found["logprobs"] = list(result.logprobs)
        return {name: value for name, value in found.items() if value is not None}


def _whole_number(value: Any) -> Any:
    """Return a number without a fraction as an integer, as Ollama reads its options; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _chat_form(text: str, reasoning: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    message: Message = {"role": "assistant", "content": text}
    if reasoning:
        message["thinking"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"id": each.id, "function": {"index": index, "name": each.name, "arguments": each.parsed()}}
            for index, each in enumerate(calls)
        ]
    return {"message": message}


def _generate_form(text: str, reasoning: str, calls: Sequence[ToolCall]) -> dict[str, Any]:  # noqa: ARG001 - has no tools
    return {"response": text, **({"thinking": reasoning} if reasoning else {})}


def openai_messages(messages: Sequence[OllamaMessage]) -> list[Message]:
    """Return messages in OpenAI's form; the results of tools get the ids of their calls. Raises Problem."""
    waiting = _Waiting([])
    made: list[Message] = []
    for place, message in enumerate(messages):
        found: Message = {"role": message.role, "content": _content(message, place)}
        if message.thinking:
            found["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = [_openai_call(each, f"call_{place}_{index}") for index, each in enumerate(message.tool_calls)]
            found["tool_calls"] = calls
            waiting = _Waiting([(each["function"]["name"], each["id"]) for each in calls])
        if message.role == "tool":
            found["tool_call_id"] = waiting.take(message, place)
        made.append(found)
    return made


class _Waiting:
    """Calls of tools without a result, in their order. Each is taken once, whatever the number of calls and results costs."""

    def __init__(self, calls: Sequence[tuple[str, str]]) -> None:
        """calls: names of tools and ids of calls."""
        self._ids = [id_ for _, id_ in calls]
        self._open = [True] * len(calls)
        self._all = deque(range(len(calls)))
        self._by_name: dict[str, deque[int]] = {}
        self._by_id: dict[str, deque[int]] = {}
        for index, (name, id_) in enumerate(calls):
            self._by_name.setdefault(name, deque()).append(index)
            self._by_id.setdefault(id_, deque()).append(index)

    def take(self, message: OllamaMessage, place: int) -> str:
        """Return the id of the call that a message is the result of: the one it names, or the first of its tool. Raises Problem.

        Args:
            message: of the role "tool".
            place: its index.
        """
        if message.tool_call_id:
            calls = self._by_id.get(message.tool_call_id, deque())
        elif message.tool_name is not None:
            calls = self._by_name.get(message.tool_name, deque())
        else:
            calls = self._all
        while calls:
            index = calls.popleft()
            if self._open[index]:
                self._open[index] = False
                return self._ids[index]
        raise Problem(
            400,
            "invalid_request",
            f"message {place} is the result of a tool that no message before it calls",
            param="messages",
        )


def _openai_call(call: OllamaToolCall, id_: str) -> dict[str, Any]:
    arguments = call.function.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or id_, "type": "function", "function": function}


def _content(message: OllamaMessage, place: int) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content or ""
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    return [*parts, *({"type": "image_url", "image_url": {"url": _data_url(each, place)}} for each in message.images)]


def _data_url(image: str, place: int) -> str:
    try:
        kind = image_type(base64.b64decode(image, validate=True))
    except (ValueError, binascii.Error):
        kind = None
    if kind is None:
        raise Problem(
            400, "invalid_request", f"message {place} has an image that is not {SUPPORTED} in base64", param="images"
        )
    return f"data:{kind};base64,{image}"


_STATUSES = (402, 404, 501, 502)
ROUTES = (
    Route(
        "POST",
        "/api/chat",
        SURFACE,
        "chat",
        chat,
        "Answer a conversation",
        ChatBody,
        ChatAnswer,
        streams=True,
        stream_type=LINES.decode(),
        statuses=_STATUSES,
    ),
    Route(
        "POST",
        "/api/generate",
        SURFACE,
        "chat",
        generate,
        "Answer a prompt",
        GenerateBody,
        GenerateAnswer,
        streams=True,
        stream_type=LINES.decode(),
        statuses=_STATUSES,
    ),
)
