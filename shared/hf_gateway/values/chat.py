"""What a chat request, its answer and the pieces of a stream are. OpenAI's chat form is the common tongue.

Source: platform.openai.com/docs/api-reference/chat.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, ValidationError

from hf_gateway.errors import Attempt, BadGeneration, BadResponse, InvalidRequest, did_you_mean
from hf_gateway.values.chat_checks import checked_choice, checked_format, checked_messages, checked_tools
from hf_gateway.values.plain_numbers import PlainNumbers
from hf_gateway.values.usage import Usage

Message = Mapping[str, Any]
"""One message in OpenAI's form: role, content (text, or a list of parts), and for tools tool_calls or tool_call_id.

The thoughts of an assistant's message stand in `reasoning_content`; each target sends them where its server takes them.
"""


class Sampling(PlainNumbers):
    """How an answer is drawn. None leaves it to the server; 0 means 0."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 for the most likely token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw from the likeliest tokens that together have this probability."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Draw from so many likeliest tokens."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Tokens the answer may have; one that is cut there has the finish_reason "length"."""
    stop: list[str] | str | None = None
    """Strings before which the answer ends."""
    seed: int | None = None
    """For answers that can be repeated, where the server can do it."""
    frequency_penalty: float | None = None
    """Makes tokens less likely the more often they have occurred."""
    presence_penalty: float | None = None
    """Makes tokens less likely once they have occurred."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draw from the tokens that have at least this part of the likeliest one's probability; not known to OpenAI."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Factor against repetition, 1 for none; not known to OpenAI. llama.cpp, LM Studio and Ollama are told it by their own name,
    `repeat_penalty`."""
    logprobs: bool | None = None
    """Ask for the logarithms of the tokens' probabilities."""
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    """And for those of so many likeliest tokens at each place."""
    reasoning_effort: str | bool | None = None
    """How much to think before answering: "low", "medium", "high"; False or "none" for not at all, True for the model's own."""
    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools at once."""
    extra_body: dict[str, Any] | None = None
    """Fields that are added to the body for OpenAI-compatible servers, such as vLLM's `guided_regex`. Ollama gets those that are
    options of its own."""


@dataclass(frozen=True)
class ChatRequest:
    """A conversation, and what is wanted next.

    messages: in OpenAI's form, never changed; tools: in OpenAI's form; tool_choice: "auto", "none", "required", or
    {"type": "function", "function": {"name": ...}}; response_format: {"type": "json_object"} or {"type": "json_schema",
    "json_schema": {"name", "schema", "strict"}}; model: instead of the chain's model, for this call; stream: whether the
    server is asked to stream.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    response_format: Mapping[str, Any] | None = None
    model: str | None = None
    stream: bool = False
    truncate: ClassVar[bool] = False
    """A conversation that is too long is refused, never cut."""

    @classmethod
    def of(cls, messages: str | Iterable[Message], defaults: Sampling | None = None, **call: Any) -> Self:
        """Check what a caller gave, before anything is sent; a string is one user message.

        defaults: the chain's own sampling; call: what goes over it, by the names of `Sampling`, and tools, tool_choice,
        response_format, model. None leaves the default. Raises InvalidRequest, naming the message by its place.
        """
        given = {name: value for name, value in call.items() if value is not None}
        own = {name: given.pop(name) for name in ("tools", "tool_choice", "response_format", "model") if name in given}
        for name in given:
            if name not in Sampling.model_fields:
                known = {*Sampling.model_fields, "tools", "tool_choice", "response_format", "model"}
                raise InvalidRequest(f"a chat request has no argument {name!r}{did_you_mean(name, known)}")
        sampling = defaults or Sampling()
        if given:
            base = {name: getattr(sampling, name) for name in sampling.model_fields_set}
            try:
                sampling = Sampling(**{**base, **given})
            except ValidationError as error:
                first = error.errors()[0]
                raise InvalidRequest(f"{'.'.join(map(str, first['loc'][:1]))}: {first['msg']}") from None
        tools = checked_tools(own.get("tools", ()))
        return cls(
            checked_messages(messages),
            sampling,
            tools,
            checked_choice(own.get("tool_choice"), tools),
            checked_format(own.get("response_format")),
            own.get("model"),
        )

    @property
    def stop(self) -> list[str]:
        """The stop strings, as a list."""
        stop = self.sampling.stop
        return [stop] if isinstance(stop, str) else list(stop or ())

    @property
    def forced_tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools of which one must be called, or none: for servers that know no tool_choice."""
        if isinstance(self.tool_choice, Mapping):
            name = self.tool_choice["function"]["name"]
            return tuple(tool for tool in self.tools if tool["function"]["name"] == name)
        return self.tools if self.tool_choice == "required" else ()

    @property
    def json_schema(self) -> Mapping[str, Any] | None:
        """The schema of the answer that is wanted; {} for any JSON object, None for free text."""
        wanted = self.response_format or {}
        if wanted.get("type") == "json_schema":
            schema: Mapping[str, Any] = wanted["json_schema"].get("schema") or {}
            return schema
        return {} if wanted.get("type") == "json_object" else None

    def split(self, limit: Any) -> None:
        """Say that a conversation cannot be cut into parts."""


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call. index: which call, None where the server does not number them; arguments: more of its JSON."""

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ChatEvent:
    """A piece of an answer: whatever of these the server said together. A whole answer is one event.

    refusal: of the model's own words why it does not answer, which are no content.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    request_id: str | None = None
    logprobs: tuple[Any, ...] = ()
    refusal: str = ""
    reasoning_field: str | None = None
    """Under which name the server sent the reasoning, so that it goes back under the same."""

    @property
    def has_content(self) -> bool:
        """Whether a reader would see anything of it; an empty role chunk is no content."""
        return bool(self.text or self.reasoning or self.tool_calls)


@dataclass(frozen=True)
class ToolCall:
    """A call the model wants made. arguments: JSON as the model wrote it, which may be wrong."""

    id: str
    name: str
    arguments: str = "{}"

    def parsed(self) -> dict[str, Any]:
        """Return the arguments. Raises BadGeneration for what is not a JSON object."""
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BadGeneration(
                f"the arguments of {self.name} are no JSON object: {self.arguments[:80]!r}",
                failed_generation=self.arguments,
            )
        return found


@dataclass(frozen=True)
class ChatAnswer:
    """What one target answered.

    model: the one that served, by its own word; provider: who ran it, where that was said; notes: what is unusual about it.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    provider: str | None = None
    request_id: str | None = None
    logprobs: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def message(self) -> dict[str, Any]:
        """Return it as an assistant message in OpenAI's form, to be put at the end of the conversation."""
        made: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            made["reasoning_content"] = self.reasoning
        if self.tool_calls:
            made["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return made


@dataclass(frozen=True, kw_only=True)
class ChatResult(ChatAnswer):
    """What the caller gets: the answer, who gave it, and why others did not.

    served_by: label of the target; attempts: everything tried; seconds: the time of the whole call; first_content_seconds:
    until the first text, reasoning or tool call, where the answer was streamed.
    """

    served_by: str
    attempts: tuple[Attempt, ...] = ()
    seconds: float = 0.0
    first_content_seconds: float | None = None


def asked_for_json(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """Ask for a form in the system message, where nothing can hold the model to it. schema: {} for any JSON object."""
    wish = "Answer with one JSON object and nothing else: no other words, no code fence."
    if schema:
        wish += f" It must match this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}"
    first = messages[0]
    if first["role"] in ("system", "developer") and isinstance(first["content"], str):
        return [{**first, "content": f"{first['content']}\n\n{wish}"}, *messages[1:]]
    return [{"role": "system", "content": wish}, *messages]


MAX_ANSWER_CHARACTERS = 10_000_000
"""Of one answer's text, thoughts and tool calls together: several times what any model writes at once."""


class AnswerBuilder:
    """Joins events into an answer, and gives each piece of a tool call its number and its id: the only place for that."""

    def __init__(self) -> None:
        """Start empty."""
        self.has_content = False
        self._characters = 0
        self.closed = False
        """Whether the stream's own last word came, or the answer came at once: nothing more would have followed."""
        self.refusal = ""
        """Why the model does not answer, in its own words."""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[Any] = []
        self._calls: list[dict[str, Any]] = []
        self._facts: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def finished(self) -> bool:
        """Whether the server said that, and why, the answer is at its end."""
        return self.finish_reason is not None

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in the server's words."""
        reason: str | None = self._facts.get("finish_reason")
        return reason

    def add(self, event: ChatEvent) -> ChatEvent:
        """Take a piece; returns it with the tool calls numbered 0, 1, … and an id at the first piece of each.

        Raises BadResponse for an answer of more than MAX_ANSWER_CHARACTERS.
        """
        self._characters += len(event.text) + len(event.reasoning) + len(event.logprobs)
        self._characters += sum(1 + len(call.name or "") + len(call.arguments) for call in event.tool_calls)
        if self._characters > MAX_ANSWER_CHARACTERS:
            raise BadResponse(f"an answer of more than {MAX_ANSWER_CHARACTERS:,} characters; the rest was not read")
        self._text.append(event.text)
        self._reasoning.append(event.reasoning)
        self._logprobs.extend(event.logprobs)
        self.refusal += event.refusal
        for name in ("finish_reason", "usage", "model", "provider", "request_id"):
            if (value := getattr(event, name)) is not None:
                self._facts[name] = value
        self.has_content = self.has_content or event.has_content
        if not event.tool_calls:
            return event
        return replace(event, tool_calls=tuple(self._merge_call(delta) for delta in event.tool_calls))

    def replace_content(self, reasoning: str, text: str) -> None:
        """Put these in the place of what was gathered: only the end shows where some servers' thoughts stop."""
        self._reasoning, self._text = [reasoning], [text]

    def answer(self) -> ChatAnswer:
        """Return what came together."""
        calls = tuple(ToolCall(call["id"], call["name"], "".join(call["arguments"]) or "{}") for call in self._calls)
        return ChatAnswer(self.text, "".join(self._reasoning), calls, logprobs=tuple(self._logprobs), **self._facts)

    def _merge_call(self, delta: ToolCallDelta) -> ToolCallDelta:
        place, first_id = self._call_index(delta), None
        if place is None:
            # Ids are what tells two calls of one tool apart; several servers send none, or the tool's name for each.
            taken = {delta.name, *(call["id"] for call in self._calls)}
            first_id = delta.id if delta.id and delta.id not in taken else f"call_{uuid.uuid4().hex[:24]}"
            self._calls.append({"id": first_id, "index": delta.index, "said": delta.id, "name": "", "arguments": []})
            place = len(self._calls) - 1
        call = self._calls[place]
        name = delta.name if delta.name and not call["name"] else None
        call["name"] = call["name"] or delta.name or ""
        call["arguments"].append(delta.arguments)
        return ToolCallDelta(place, first_id, name, delta.arguments)

    def _call_index(self, delta: ToolCallDelta) -> int | None:
        """Find the call a piece belongs to: by its number and its id, else the last one; None for a new call."""
        numbered = enumerate(self._calls)
        places = [place for place, call in numbered if delta.index is None or call["index"] == delta.index]
        if delta.id:
            # Ollama's OpenAI form numbers every call 0, and only the ids tell them apart.
            said = [place for place in places if self._calls[place]["said"] == delta.id]
            places = said or ([] if delta.name else places)
        elif delta.index is None and delta.name:
            return None
        return places[-1] if places and not _starts_another_call(delta, self._calls[places[-1]]) else None


def _starts_another_call(delta: ToolCallDelta, call: Mapping[str, Any]) -> bool:
    """Say whether a piece with the number and the id of a call is another call: some servers give all of them the same."""
    if not delta.name or not call["name"]:
        return False
    if delta.name != call["name"]:
        return True
    try:
        whole = isinstance(json.loads("".join(call["arguments"])), dict)
    except (ValueError, RecursionError):
        whole = False
    return whole and bool(delta.arguments.strip())
