"""The values of a chat: request, answer, and the pieces of a stream, in OpenAI's form.

Source: platform.openai.com/docs/api-reference/chat.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self, TypedDict

from pydantic import ConfigDict, Field, ValidationError

from hf_gateway.errors import BadGeneration, InvalidRequest, did_you_mean
from hf_gateway.values.chat_checks import checked_choice, checked_format, checked_messages, checked_tools
from hf_gateway.values.plain_numbers import PlainNumbers
from hf_gateway.values.redaction import MODEL_NAMES_NO_MODEL, is_hub_token
from hf_gateway.values.result import Result
from hf_gateway.values.usage import Usage

Message = Mapping[str, Any]
"""One message in OpenAI's form: role, content (text, or a list of parts), and for tools tool_calls or tool_call_id.

The reasoning of an assistant's message is in `reasoning_content`; each backend sends it in the form that its server accepts.
"""


class SamplingKeywords(TypedDict, total=False):
    """Keyword arguments of a call that say how its answer is drawn; the fields of `Sampling` say what they are for."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    max_tokens: int | None
    stop: list[str] | str | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    min_p: float | None
    repetition_penalty: float | None
    logprobs: bool | None
    top_logprobs: int | None
    reasoning_effort: str | bool | None
    parallel_tool_calls: bool | None
    extra_body: dict[str, Any] | None


class Sampling(PlainNumbers):
    """How an answer is sampled. None leaves a setting to the server; 0 means 0."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Sampling temperature; 0 for the most likely token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample from the most likely tokens that together have this probability."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Sample from this many of the most likely tokens."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum tokens of the answer; one that is cut there has the finish_reason "length"."""
    stop: list[str] | str | None = None
    """Strings before which the answer ends, one or a list."""
    seed: int | None = None
    """Seed for answers that can be repeated, if the server supports it."""
    frequency_penalty: float | None = None
    """Makes tokens less likely the more often they have occurred."""
    presence_penalty: float | None = None
    """Makes tokens less likely once they have occurred."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Sample from the tokens that have at least this fraction of the most likely one's probability; not supported by OpenAI."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Factor against repetition, 1 for no change; not supported by OpenAI. llama.cpp, LM Studio and Ollama receive it under their
    own name, `repeat_penalty`."""
    logprobs: bool | None = None
    """Whether to return the log probabilities of the tokens."""
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    """How many of the most likely tokens at each place to return log probabilities for."""
    reasoning_effort: str | bool | None = None
    """How much to think before answering: "low", "medium", "high"; False or "none" for no thinking, True for the default."""
    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools at once."""
    extra_body: dict[str, Any] | None = None
    """Fields added to the body for OpenAI-compatible servers, such as vLLM's `guided_regex`. Ollama receives those that are
    options of its own."""


@dataclass(frozen=True)
class ChatRequest:
    """A conversation, and how to answer it."""

    messages: tuple[Message, ...]
    """The conversation in OpenAI's form; never modified."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the answer is sampled."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The tools that the model may call, in OpenAI's form."""
    tool_choice: str | Mapping[str, Any] | None = None
    """"auto", "none", "required", or {"type": "function", "function": {"name": ...}}; None leaves it to the server."""
    response_format: Mapping[str, Any] | None = None
    """{"type": "json_object"} or {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}; None for text."""
    model: str | None = None
    """The model for this call; None for the chain's model."""
    stream: bool = False
    """Whether the server is asked to stream."""
    in_pieces: bool = True
    """Whether the caller takes a streamed answer in pieces; otherwise those that arrive together may be joined."""
    truncate: ClassVar[bool] = False
    """A conversation that is too long is refused, never truncated."""

    @classmethod
    def of(cls, messages: str | Iterable[Message], defaults: Sampling | None = None, **call: Any) -> Self:
        """Check a caller's arguments before anything is sent.

        Args:
            messages: in OpenAI's form; a string is one user message.
            defaults: the chain's own sampling.
            call: values that override it, by the names of `Sampling`, and tools, tool_choice, response_format, model. None
                leaves the default.

        Raises:
            InvalidRequest: an argument is unknown or invalid; names a message or tool by its index.
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
        model = own.get("model")
        if isinstance(model, str) and is_hub_token(model):
            raise InvalidRequest(MODEL_NAMES_NO_MODEL)
        tools = checked_tools(own.get("tools", ()))
        return cls(
            checked_messages(messages),
            sampling,
            tools,
            checked_choice(own.get("tool_choice"), tools),
            checked_format(own.get("response_format")),
            model,
        )

    @property
    def stop(self) -> list[str]:
        """The stop strings, as a list."""
        stop = self.sampling.stop
        return [stop] if isinstance(stop, str) else list(stop or ())

    @property
    def forced_tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools of which one must be called, or an empty tuple; for servers without tool_choice."""
        if isinstance(self.tool_choice, Mapping):
            name = self.tool_choice["function"]["name"]
            return tuple(tool for tool in self.tools if tool["function"]["name"] == name)
        return self.tools if self.tool_choice == "required" else ()

    @property
    def json_schema(self) -> Mapping[str, Any] | None:
        """The JSON schema that the answer must match; {} for any JSON object, None for free text."""
        wanted = self.response_format or {}
        if wanted.get("type") == "json_schema":
            schema: Mapping[str, Any] = wanted["json_schema"].get("schema") or {}
            return schema
        return {} if wanted.get("type") == "json_object" else None

    def split(self, limit: Any) -> None:
        """Return None: a conversation cannot be divided."""


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call."""

    index: int | None = None
    """Number of the call in the answer; None if the server does not number them."""
    id: str | None = None
    """Set in the first piece of a call."""
    name: str | None = None
    """Name of the tool, in the first piece of a call."""
    arguments: str = ""
    """The next part of the arguments' JSON."""


@dataclass(frozen=True)
class ChatEvent:
    """A piece of a streamed answer: the fields that the server sent together. An answer that is not streamed is one event."""

    text: str = ""
    """The next part of the text."""
    reasoning: str = ""
    """The next part of the reasoning."""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    """Pieces of tool calls."""
    finish_reason: str | None = None
    """Why the answer ended, in the server's words; in the last pieces only."""
    usage: Usage | None = None
    """Set once, usually in the last piece."""
    model: str | None = None
    """The model that serves, as the server reports it."""
    provider: str | None = None
    """Who runs it, for Inference Providers."""
    request_id: str | None = None
    """The server's id of the request."""
    logprobs: tuple[Any, ...] = ()
    """Log probabilities of the tokens in this piece."""
    refusal: str = ""
    """The model's own words why it does not answer; not counted as content."""
    reasoning_field: str | None = None
    """The name under which the server sent the reasoning, so that it is sent back under the same name."""

    def with_text(self, text: str) -> Self:
        """Return the event with another text, in a tenth of the time of `replace`: a stream has thousands of events."""
        made = object.__new__(type(self))
        object.__setattr__(made, "__dict__", {**self.__dict__, "text": text})
        return made

    @property
    def has_content(self) -> bool:
        """Whether it contains text, reasoning or a tool call; an event with only a role does not."""
        return bool(self.text or self.reasoning or self.tool_calls)


@dataclass(frozen=True)
class ToolCall:
    """A tool call that the model asks for."""

    id: str
    """Unique in the answer; made here if the server sent none."""
    name: str
    """Name of the tool."""
    arguments: str = "{}"
    """JSON as the model wrote it, which may be invalid."""

    def parsed(self) -> dict[str, Any]:
        """Return the arguments as a dict. Raises BadGeneration if they are not a JSON object."""
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BadGeneration(
                f"the arguments of {self.name} are not a JSON object: {self.arguments[:80]!r}",
                failed_generation=self.arguments,
            )
        return found


@dataclass(frozen=True)
class ChatAnswer:
    """The answer of one target."""

    text: str = ""
    """The content."""
    reasoning: str = ""
    """The model's reasoning, if the server returns it."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls that the model asks for."""
    finish_reason: str | None = None
    """Why the answer ended, in the server's words: "stop", "length", "tool_calls"."""
    usage: Usage = field(default_factory=Usage)
    """Tokens and cost, as far as the server reported them."""
    model: str | None = None
    """The model that served, as the server reports it."""
    provider: str | None = None
    """Who ran it, if the server reports that."""
    request_id: str | None = None
    """The server's id of the request."""
    logprobs: tuple[Any, ...] = ()
    """Log probabilities of the tokens, if they were asked for."""
    notes: tuple[str, ...] = ()
    """What is unusual about the answer, in words for users."""

    def message(self) -> dict[str, Any]:
        """Return it as an assistant message in OpenAI's form, to append to the conversation."""
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
class ChatResult(ChatAnswer, Result):
    """The answer with the target that gave it, and the attempts that failed before."""

    served_by: str
    """Label of the target that answered."""
    first_content_seconds: float | None = None
    """Seconds until the first text, reasoning or tool call of a streamed answer."""


def with_json_instruction(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """Return messages whose system message asks for JSON, for servers that cannot constrain the answer.

    Args:
        messages: a conversation in OpenAI's form; not modified.
        schema: the JSON schema of the answer; {} for any JSON object.
    """
    wish = "Answer with one JSON object and nothing else: no other words, no code fence."
    if schema:
        wish += f" It must match this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}"
    first = messages[0]
    if first["role"] in ("system", "developer") and isinstance(first["content"], str):
        return [{**first, "content": f"{first['content']}\n\n{wish}"}, *messages[1:]]
    return [{"role": "system", "content": wish}, *messages]
