"""OpenAI's chat API, as vLLM, TGI, llama.cpp, LM Studio, transformers serve and Hugging Face's router implement it.

Source: platform.openai.com/docs/api-reference/chat; deviations from recorded traffic of eight providers and TGI.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hf_gateway.errors import BadResponse
from hf_gateway.values.chat import ChatEvent, ChatRequest, Sampling, ToolCallDelta
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.reasoning import with_reasoning
from hf_gateway.values.usage import Usage, parse_cost, parse_token_count
from hf_gateway.wire.classify import classify_inside
from hf_gateway.wire.http import post_json, read_json
from hf_gateway.wire.openai import endpoint
from hf_gateway.wire.sse import EVENT_STARTS, EventStream, parse_event

STANDARD = ("temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty", "logprobs")
BEYOND = ("top_k", "min_p", "repetition_penalty", "top_logprobs")
_SAMPLED = (*STANDARD, *BEYOND)
BEYOND_FORM = ("repeat_penalty", "chat_template_kwargs")
"""Fields sent in addition to OpenAI's, and left out if a server refuses them."""
STREAM_OPTIONS = "stream_options"
"""Requests the count of tokens at the end of a stream; left out if a server refuses it."""
MAX_FORMS_COUNT = 4
"""How often the bytes around a stream's texts are looked at: some servers put other ones into every piece."""
MIN_WINDOW_BYTES, MAX_WINDOW_BYTES = 2**11, 2**18
"""Bytes of a stream that are divided at once. All of what has arrived would be divided again after every escape in it."""
_CONTENT = b'"content"'
REQUEST_IDS = ("x-request-id", "inference-id", "x-inference-id")


def chat_url(url: str) -> str:
    """Complete a base URL: nothing after the host gets `/v1/chat/completions`, a path gets `/chat/completions`."""
    return endpoint(url, "chat/completions")


@dataclass(frozen=True)
class Dialect:
    """What is sent beyond OpenAI's API, and how much of it a server accepts."""

    reasoning: str | None = "reasoning_content"
    """The field for reasoning that is sent back; None if it is not sent."""
    missing_reasoning: str = ""
    """What replaces reasoning that is required and missing."""
    refused: frozenset[str] = frozenset()
    """Names in BEYOND_FORM, or STREAM_OPTIONS, that this server does not accept."""
    named_choice: bool = False
    """Whether a tool that must be called is named, for the few servers without "required"."""


PLAIN = Dialect()


def encode_chat(
    url: str, model: str | None, request: ChatRequest, *, stream_usage: bool = True, dialect: Dialect = PLAIN
) -> HttpRequest:
    """Build the POST. What is not set is left out: some servers refuse a null.

    A tool that must be called is the only one that is offered, and the choice is "required": the form that names it is read as
    "auto" by llama.cpp and refused by LM Studio.

    Args:
        url: of the chat route.
        model: its name on this server.
        request: the conversation.
        stream_usage: request the count of tokens at the end of a stream, which servers do not send otherwise.
        dialect: what this server accepts beyond the API.
    """
    sampling = request.sampling
    messages = with_reasoning(request.messages, dialect.reasoning, missing=dialect.missing_reasoning)
    payload: dict[str, Any] = {"messages": messages}
    if model is not None:
        payload["model"] = model
    payload.update(_sampled(request, dialect))
    if request.tools:
        payload["tools"] = list(request.forced_tools or request.tools)
        if sampling.parallel_tool_calls is not None:
            payload["parallel_tool_calls"] = sampling.parallel_tool_calls
        if request.tool_choice is not None:
            named = isinstance(request.tool_choice, Mapping) and not dialect.named_choice
            payload["tool_choice"] = "required" if named else request.tool_choice
    if request.response_format is not None:
        payload["response_format"] = request.response_format
    if request.stream:
        payload["stream"] = True
        if stream_usage and STREAM_OPTIONS not in dialect.refused:
            payload[STREAM_OPTIONS] = {"include_usage": True}
    given = dict(sampling.extra_body or {})
    if isinstance(template := given.get("chat_template_kwargs"), Mapping):
        given["chat_template_kwargs"] = {**payload.get("chat_template_kwargs", {}), **template}
    payload.update(given)
    message = post_json(url, payload)
    if request.stream:
        # Whole events, rather than a compressor's blocks.
        headers = {**message.headers, "accept": "text/event-stream, application/json", "accept-encoding": "identity"}
        return HttpRequest(message.method, message.url, message.body, headers)
    return message


def _sampled(request: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    sampling = request.sampling
    made = {name: value for name in _SAMPLED if (value := getattr(sampling, name)) is not None}
    if request.stop:
        made["stop"] = request.stop
    if sampling.reasoning_effort is not None and sampling.reasoning_effort is not True:
        made["reasoning_effort"] = sampling.reasoning_effort or "none"
    return made | {name: value for name, value in _beyond_form(sampling).items() if name not in dialect.refused}


def _beyond_form(sampling: Sampling) -> dict[str, Any]:
    """Return the same settings in the words of servers that would ignore the usual ones silently."""
    made: dict[str, Any] = {}
    if sampling.repetition_penalty is not None:
        made["repeat_penalty"] = sampling.repetition_penalty  # llama.cpp and LM Studio
    if (effort := sampling.reasoning_effort) is not None:
        # vLLM, SGLang and llama.cpp leave thinking to the model's template.
        made["chat_template_kwargs"] = template_switches(effort)
    return made


def template_switches(effort: str | bool) -> dict[str, Any]:
    """Return the reasoning effort as variables of chat templates: `enable_thinking` is Qwen's, `reasoning_effort` gpt-oss's."""
    if effort is False or effort == "none":
        return {"enable_thinking": False}
    return {"enable_thinking": True} | ({} if effort is True else {"reasoning_effort": effort})


def decode_chat(response: HttpResponse, *, target: str) -> ChatEvent:
    """Read a whole answer. An error in the body of a 200 is raised.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    if not isinstance(data, dict):
        raise BadResponse("the answer is not a JSON object; is this an OpenAI-compatible server?", target=target)
    choice = _choice(data)
    if choice is None:
        raise BadResponse("the answer has no 'choices'; is this an OpenAI-compatible server?", target=target)
    _raise_error(choice, target)
    event = _event(data, choice, choice.get("message"), _message_of(response.headers))
    if not event.tool_calls:
        return event
    # Each is a separate call here, whatever number or id it has: TGI gives all of them the id "0".
    calls = tuple(replace(call, index=place) for place, call in enumerate(event.tool_calls))
    return replace(event, tool_calls=calls)


class OpenAIStreamDecoder:
    """Reads a stream of chunks. finished: a finish_reason has arrived; done: `[DONE]` has, and no more events will come."""

    starts: ClassVar[bytes] = EVENT_STARTS

    def __init__(
        self,
        headers: Mapping[str, str],
        target: str,
        turned: Callable[[ChatEvent], ChatEvent] = lambda event: event,
        *,
        joins: bool = False,
    ) -> None:
        """Begin.

        Args:
            headers: of the response.
            target: label for errors.
            turned: applied to every event.
            joins: whether texts that arrive together become one event.
        """
        self.finished = False
        self.done = False
        self._turned = turned
        self._joins = joins
        self._events = EventStream(target)
        self._said_by = _message_of(headers)
        self._target = target
        self._plain: ChatEvent | None = None
        self._form = _TextForm()

    def feed(self, data: bytes) -> Iterator[ChatEvent]:
        """Decode more bytes; yields events. Raises the error that the stream reports, or BadResponse for an invalid stream."""
        return iter(()) if self.done else self._decode(data)

    def end(self) -> Iterator[ChatEvent]:
        """Handle the end of the stream; yields the events of an incomplete last line."""
        try:
            if not self.done:
                yield from self._read(self._events.end())
        except BadResponse:
            # Otherwise only what follows the answer was cut off: the count of tokens, or `[DONE]`.
            if not self.finished:
                raise

    def _decode(self, data: bytes) -> Iterator[ChatEvent]:
        place = 0
        while place < len(data) and not self.done:
            if self._plain is not None and self._events.is_between and (found := self._form.texts(data, place)):
                texts, place = found
                for text in ("".join(texts),) if self._joins else texts:
                    yield self._turned(self._plain.with_text(text))
                continue
            end = data.find(b"\n\n", place) + 2
            event = data[place:end] if end > 1 else data[place:]
            place += len(event)
            yield from self._read(self._events.feed(event), event)

    def _read(self, found: Iterable[bytes], received: bytes = b"") -> Iterator[ChatEvent]:
        """Decode events.

        Args:
            found: their data.
            received: the bytes that they were received in, if it is one event.
        """
        for data in found:
            if not data.startswith(b"{"):
                if (other := data.strip()) == b"[DONE]":
                    self.done = True
                    return
                if not other:
                    continue
            message = parse_event(data, self._target)
            text = self._plain_text(message)
            if text is not None and self._plain is not None:
                self._form.learn(received, data, text)
                yield self._turned(self._plain.with_text(text))
            else:
                yield self._turned(self._other_event(message))

    def _other_event(self, data: Mapping[str, Any]) -> ChatEvent:
        _raise_error(data, self._target)
        choice = _choice(data) or {}
        _raise_error(choice, self._target)  # OpenRouter puts its provider's error there
        event = _event(data, choice, choice.get("delta") or choice.get("message"), self._said_by)
        if event.finish_reason is not None:
            self.finished = True
        return event

    def _plain_text(self, data: Mapping[str, Any]) -> str | None:
        """Return the text of a piece of text and nothing else, as nearly all of a stream are; None for any other.

        The rest of such an event is `_plain`.
        """
        choices = data.get("choices")
        if type(choices) is not list or len(choices) != 1 or data.get("error") or data.get("usage"):
            return None
        choice = choices[0]
        # No other choice, no end, no log probabilities, no error.
        if (
            type(choice) is not dict
            or not _has_only(choice, ("delta", "object"))
            or "error" in (data.get("object"), choice.get("object"))
        ):
            return None
        delta = choice.get("delta")
        # No reasoning, no refusal, no tool call.
        if type(delta) is not dict or not _has_only(delta, ("content", "role")):
            return None
        text, model = delta.get("content"), _string(data.get("model"))
        if type(text) is not str:
            return None
        if self._plain is None or self._plain.model != model:
            provider, request_id = self._said_by
            self._plain = ChatEvent(model=model, provider=provider, request_id=request_id)
        return text


class _TextForm:
    """The bytes around the text of a piece of a stream, which are the same in nearly all pieces and then parsed once."""

    def __init__(self) -> None:
        self._before, self._after, self._between = b"", b"", b""
        self._tries = MAX_FORMS_COUNT
        self._window = MIN_WINDOW_BYTES

    def texts(self, data: bytes, place: int) -> tuple[list[str], int] | None:
        """Return the texts of events that differ in them alone, and the place behind these events; None for no such event.

        Args:
            data: of the stream.
            place: of the beginning of an event.
        """
        if not self._before or not data.startswith(self._before, place):
            return None
        start = place + len(self._before)
        found = data[start : start + self._window].split(self._between)
        text, end, _ = found.pop().partition(self._after)
        if end:
            found.append(text)
        # Another event between two of them, and an escape in a text, have quotes or backslashes.
        joined = b'"'.join(found)
        window = min(2 * self._window, MAX_WINDOW_BYTES)
        if joined.count(b'"') >= max(len(found), 1) or b"\\" in joined:
            found = list(itertools.takewhile(_is_plain, found))
            joined = b'"'.join(found)
            window = MIN_WINDOW_BYTES
        self._window = window
        # A character that is divided between two texts is no character in either.
        try:
            plain = joined.decode()
        except UnicodeDecodeError:
            plain = "\0"
        if not found or not plain.isprintable():  # a control character is invalid in JSON
            self._window = MIN_WINDOW_BYTES
            return None
        return plain.split('"'), place + len(joined) + 1 + len(found) * (len(self._between) - 1)

    def learn(self, received: bytes, data: bytes, text: str) -> None:
        """Remember the bytes around the text of an event.

        Args:
            received: the event as it was received.
            data: its data.
            text: its text, beside which it has nothing of the answer.
        """
        if not self._tries:
            return
        self._tries -= 1
        before, name, after = received.partition(_CONTENT)
        colon, quote, after = after.partition(b'"')
        raw = text.encode(errors="replace")
        if (
            received in (b"data: %b\n\n" % data, b"data:%b\n\n" % data)
            and _CONTENT not in after
            and b"\\" not in received
            and colon.strip() == b":"
            and after.startswith(raw + quote)
        ):
            self._before, self._after = before + name + colon + quote, after[len(raw) :]
            self._between = self._after + self._before


def _is_plain(text: bytes) -> bool:
    """Return whether a part of a string in JSON is the text itself, to its end."""
    return b'"' not in text and b"\\" not in text


def _has_only(fields: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Return whether all other fields are empty."""
    for name, value in fields.items():  # noqa: SIM110 - a generator takes twice as long
        if value and name not in names:
            return False
    return True


def _message_of(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the provider and the id of the request, from the headers of a response."""
    return headers.get("x-inference-provider"), next((headers[name] for name in REQUEST_IDS if name in headers), None)


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first answer; with `n` there are more, and a stream mixes their pieces."""
    for each in _list(data.get("choices")):
        if isinstance(each, dict) and not each.get("index"):
            return each
    return None


def _event(
    data: Mapping[str, Any], choice: Mapping[str, Any], message: Any, said_by: tuple[str | None, str | None]
) -> ChatEvent:
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    # Plain text is nearly all there is in a stream, and a stream has thousands of events.
    text, thoughts = (content, "") if isinstance(content, str) else _texts(content)
    field = _reasoning_field(message)
    calls = message.get("tool_calls")
    calls = [calls] if isinstance(calls, dict) else _list(calls)  # older TGIs stream one call, not a list
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    provider, request_id = said_by
    return ChatEvent(
        text,
        message[field] if field else thoughts,
        tuple([_tool_call(call) for call in calls if isinstance(call, dict)]) if calls else (),
        _string(choice.get("finish_reason")),
        usage_of(data.get("usage")),
        _string(data.get("model")),
        provider,
        request_id,
        tuple(_list(tokens)) if tokens else (),
        _refusal(message),
        field,
    )


def _reasoning_field(message: Mapping[str, Any]) -> str | None:
    """Return the field in which a server sent reasoning."""
    for name in ("reasoning_content", "reasoning"):
        if _string(message.get(name)) is not None:
            return name
    return None


def _refusal(message: Mapping[str, Any]) -> str:
    """Return why the model does not answer: from a field of its own, or a part of the content."""
    content = message.get("content")
    if not isinstance(content, list):
        return _string(message.get("refusal")) or ""
    parts = [message, *content]
    return "".join(_string(part.get("refusal")) or "" for part in parts if isinstance(part, dict))


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(content: Any) -> tuple[str, str]:
    """Return text and reasoning; content is a string, or a list of parts as Mistral's reasoning models send it."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    text, thoughts = [], []
    for part in _list(content):
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict) and part.get("type") == "thinking":
            thoughts.append(_texts(part.get("thinking"))[0])
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            text.append(part["text"])
    return "".join(text), "".join(thoughts)


def _tool_call(call: Mapping[str, Any]) -> ToolCallDelta:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    index, arguments = call.get("index"), function.get("arguments")
    return ToolCallDelta(
        index if isinstance(index, int) else None,
        _string(call.get("id")),
        _string(function.get("name")),
        arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments),
    )


def usage_of(usage: Any) -> Usage | None:
    """Read OpenAI's `usage`, with its details, and its `cost` in USD as OpenRouter writes it."""
    if not isinstance(usage, dict):
        return None
    return Usage(
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        _count(usage.get("prompt_tokens_details"), "cached_tokens"),
        _count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        parse_cost(usage.get("cost")),
    )


def _count(counts: Any, name: str) -> int | None:
    return parse_token_count(counts.get(name)) if isinstance(counts, dict) else None


def _raise_error(data: Mapping[str, Any], target: str) -> None:
    """Raise the error that a stream contains."""
    if (found := classify_inside(data, target=target)) is not None:
        raise found
