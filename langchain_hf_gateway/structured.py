"""Structured output: requests a schema as a tool call, as JSON of a schema, or as any JSON, and parses the answer."""

from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import (
    BaseCumulativeTransformOutputParser,
    BaseOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
)
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from pydantic.v1 import BaseModel as PydanticV1

from hf_gateway.errors import InvalidRequest, did_you_mean
from langchain_hf_gateway.messages import calls_of

Method = Literal["function_calling", "json_schema", "json_mode"]
METHODS = ("function_calling", "json_schema", "json_mode")


def structured(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    method: Method,
    *,
    include_raw: bool,
    strict: bool | None,
    call: dict[str, Any],
) -> Runnable[LanguageModelInput, Any]:
    """Bind a model to a schema, followed by a parser.

    Args:
        model: the chat model.
        schema: a Pydantic class, a TypedDict or a JSON schema.
        method: how the schema is requested.
        include_raw: return the message and errors of parsing instead of raising them.
        strict: whether the server enforces the schema exactly.
        call: other arguments of every call.

    Raises:
        InvalidRequest: an unknown method, or one that cannot be strict.
        ValueError: an invalid schema.
    """
    if method not in METHODS:
        raise InvalidRequest(f"there is no method {method!r}{did_you_mean(str(method), list(METHODS))}")
    if method == "json_mode" and strict:
        raise InvalidRequest(
            "strict=True holds an answer to its schema, and with method='json_mode' no server knows of one"
        )
    told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    function = convert_to_openai_tool(schema, strict=strict)["function"]
    bound: Runnable[LanguageModelInput, Any]
    if method == "function_calling":
        bound = model.bind_tools(
            [schema], tool_choice=function["name"], strict=strict, ls_structured_output_format=told, **call
        )
    else:
        wanted = {"type": "json_object"} if method == "json_mode" else _response_format(function)
        bound = model.bind(response_format=wanted, ls_structured_output_format=told, **call)
    parser = _parser(schema, method, function["name"])
    if not include_raw:
        return bound | parser
    # Like BaseChatModel: an answer that cannot be parsed is reported rather than raised.
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")


def _response_format(function: dict[str, Any]) -> dict[str, Any]:
    named = {name: function[name] for name in ("name", "description", "strict") if name in function}
    return {"type": "json_schema", "json_schema": {**named, "schema": function.get("parameters", {})}}


def _parser(schema: Any, method: Method, name: str) -> BaseOutputParser[Any]:
    pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        if pydantic:
            return _CallOfClass(tools=[schema], first_tool_only=True)
        return _CallOfSchema(key_name=name, first_tool_only=True)
    return _JsonOfClass(pydantic_object=schema) if pydantic else _JsonOfSchema()


class _AnswerParser(BaseCumulativeTransformOutputParser[Any]):
    """Raises an error for an answer that LangChain's parsers pass over silently, as None or as an empty stream.

    Such an answer has no call of the tool, or arguments that are not JSON, or is the JSON `null`.
    """

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer, or the part of it that has arrived.

        Args:
            result: the generations; the first one is parsed.
            partial: whether the answer is incomplete.

        Raises:
            OutputParserException: a complete answer contains no object.
        """
        found = super().parse_result(result, partial=partial)
        if not partial and not isinstance(found, Mapping | BaseModel | PydanticV1):
            raise OutputParserException(
                f"the answer has no object in the form that was asked for: {_answer_words(result[0])}",
                llm_output=result[0].text,
            )
        return found

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002 - LangChain's name
        kept: list[str | BaseMessage] = []
        last = None
        for last in super()._transform(_keeping(input, kept)):
            yield last
        if kept and (whole := self.parse_result([_last_generation(kept)])) != last:
            yield whole

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002
        kept: list[str | BaseMessage] = []
        last = None
        async for last in super()._atransform(_akeeping(input, kept)):
            yield last
        if kept and (whole := self.parse_result([_last_generation(kept)])) != last:
            yield whole


class _CallOfClass(_AnswerParser, PydanticToolsParser):
    pass


class _CallOfSchema(_AnswerParser, JsonOutputKeyToolsParser):
    pass


class _JsonOfClass(_AnswerParser, PydanticOutputParser[Any]):
    pass


class _JsonOfSchema(_AnswerParser, JsonOutputParser):
    pass


def _keeping(pieces: Iterator[str | BaseMessage], kept: list[str | BaseMessage]) -> Iterator[str | BaseMessage]:
    for piece in pieces:
        kept.append(piece)
        yield piece


async def _akeeping(
    pieces: AsyncIterator[str | BaseMessage], kept: list[str | BaseMessage]
) -> AsyncIterator[str | BaseMessage]:
    async for piece in pieces:
        kept.append(piece)
        yield piece


def _last_generation(pieces: list[str | BaseMessage]) -> Generation:
    """Return the whole answer of a stream; a model that does not stream sends a single piece."""
    if isinstance(pieces[0], str):
        return Generation(text="".join(map(str, pieces)))
    message: Any = pieces[0]
    for piece in pieces[1:]:
        message = message + piece
    return ChatGeneration(message=_strict(message) if isinstance(message, AIMessageChunk) else message)


def _strict(message: AIMessageChunk) -> AIMessage:
    """Return a merged stream as a message: LangChain takes the readable part of broken arguments for the arguments."""
    calls, spoilt = calls_of(
        {"id": chunk["id"], "function": {"name": chunk["name"] or "", "arguments": chunk["args"] or "{}"}}
        for chunk in message.tool_call_chunks
    )
    return AIMessage(
        message.text, response_metadata=message.response_metadata, tool_calls=calls, invalid_tool_calls=spoilt
    )


def _answer_words(generation: Generation) -> str:
    """Return what the model answered in place of the call that was asked for."""
    message = generation.message if isinstance(generation, ChatGeneration) else None
    calls = [call["name"] for call in message.tool_calls] if isinstance(message, AIMessage) else []
    spoilt = message.invalid_tool_calls if isinstance(message, AIMessage) else []
    cut = ", cut at max_tokens" if message and message.response_metadata.get("finish_reason") == "length" else ""
    if spoilt:
        return f"the arguments of {spoilt[0]['name']} are not a JSON object{cut}: {(spoilt[0]['args'] or '')[:200]!r}"
    if calls:
        return f"it calls {', '.join(calls)}{cut}"
    return f"the model said{cut}: {generation.text[:200]!r}"
