"""Structured output: the schema asked for as a tool call, as JSON of a schema, or as JSON of any kind, and what reads it."""

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
    """Bind the model to a schema, and put a parser behind it; call: what holds for every call besides.

    Raises InvalidRequest for a method that there is not, or one that cannot be strict; ValueError for a schema that is none.
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
    # As BaseChatModel does it: an answer that cannot be parsed is no error here, but told of.
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
    """Makes an error of an answer that LangChain's parsers pass over in silence, as None or as a stream of nothing.

    That is one without a call of the tool, or whose arguments are no JSON, or that is the JSON `null`.
    """

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer, or what has come of it. Raises OutputParserException for a whole one that has no object."""
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
    """Return the whole answer of a stream; of a model that does not stream the only piece is one."""
    if isinstance(pieces[0], str):
        return Generation(text="".join(map(str, pieces)))
    message: Any = pieces[0]
    for piece in pieces[1:]:
        message = message + piece
    return ChatGeneration(message=_strict(message) if isinstance(message, AIMessageChunk) else message)


def _strict(message: AIMessageChunk) -> AIMessage:
    """Return a gathered stream as a message: LangChain takes what can be read of broken arguments for the arguments."""
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
        return f"the arguments of {spoilt[0]['name']} are no JSON object{cut}: {(spoilt[0]['args'] or '')[:200]!r}"
    if calls:
        return f"it calls {', '.join(calls)}{cut}"
    return f"the model said{cut}: {generation.text[:200]!r}"
