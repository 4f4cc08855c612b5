"""Structured output: the schema asked for as a tool call, as JSON of a schema, or as JSON of any kind, and what reads it."""

from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from hf_gateway.errors import InvalidRequest, nearest

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
        raise InvalidRequest(f"there is no method {method!r}{nearest(str(method), list(METHODS))}")
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
            return PydanticToolsParser(tools=[schema], first_tool_only=True)
        return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    return PydanticOutputParser(pydantic_object=schema) if pydantic else JsonOutputParser()
