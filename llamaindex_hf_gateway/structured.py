"""Answers that are instances of a pydantic class, in the two ways in which a server can enforce that.

LlamaIndex's own `FunctionCallingProgram` does not force the call when it streams, takes a stream that broke off for an answer,
and omits the system prompt in its async form.
"""

import copy
import re
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any, Literal

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.output_parsers.pydantic import PydanticOutputParser
from llama_index.core.program.utils import create_flexible_model
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import BasePydanticProgram
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from hf_gateway.errors import BadGeneration
from llamaindex_hf_gateway.messages import arguments_of, tool_calls_of

Way = Literal["function_calling", "json_schema"]

# Arguments that LlamaIndex's programs remove from `llm_kwargs`, since they set them themselves.
_OURS = ("tool_required", "tool_choice", "allow_parallel_tool_calls")


class StructuredProgram(BasePydanticProgram):  # type: ignore[misc]
    """Requests an instance of a class, and parses it.

    Args:
        llm: the model.
        output_cls: the class.
        prompt: its variables are the arguments of a call.
        way: "function_calling" makes the class the only tool, which must be called; "json_schema" makes the answer itself follow
            the class's schema.

    Raises BadGeneration for an answer that is not an instance, with the reason.
    """

    def __init__(
        self, llm: FunctionCallingLLM, output_cls: type[BaseModel], prompt: BasePromptTemplate, way: Way
    ) -> None:
        self._llm = llm
        self._output_cls = output_cls
        self._prompt = prompt
        self._wanted = tool_for(output_cls) if way == "function_calling" else format_for(output_cls)
        self._flexible = create_flexible_model(output_cls)

    @property
    def output_cls(self) -> type[BaseModel]:
        """The class."""
        return self._output_cls

    def __call__(self, *, llm_kwargs: Mapping[str, Any] | None = None, **prompt_args: Any) -> BaseModel:
        """Return an instance."""
        return self._whole(self._llm.chat(self._messages(prompt_args), **self._call(llm_kwargs)))

    async def acall(self, *, llm_kwargs: Mapping[str, Any] | None = None, **prompt_args: Any) -> BaseModel:
        """Return an instance, without blocking the event loop."""
        return self._whole(await self._llm.achat(self._messages(prompt_args), **self._call(llm_kwargs)))

    def stream_call(
        self, *, llm_kwargs: Mapping[str, Any] | None = None, **prompt_args: Any
    ) -> Generator[BaseModel, None, None]:
        """Yield the answer as it grows: an instance if it is valid, otherwise an object with missing fields.

        The last one is always an instance.
        """
        response = ChatResponse(message=ChatMessage())
        with closing(self._llm.stream_chat(self._messages(prompt_args), **self._call(llm_kwargs))) as responses:
            for response in responses:
                if (part := self._part(response)) is not None:
                    yield part
        yield self._whole(response)

    async def astream_call(
        self, *, llm_kwargs: Mapping[str, Any] | None = None, **prompt_args: Any
    ) -> AsyncGenerator[BaseModel, None]:
        """Like `stream_call`, without blocking the event loop."""

        async def gen() -> AsyncGenerator[BaseModel, None]:
            response = ChatResponse(message=ChatMessage())
            stream = await self._llm.astream_chat(self._messages(prompt_args), **self._call(llm_kwargs))
            async with aclosing(stream) as responses:
                async for response in responses:
                    if (part := self._part(response)) is not None:
                        yield part
            yield self._whole(response)

        return gen()

    def _messages(self, prompt_args: Mapping[str, Any]) -> list[ChatMessage]:
        messages: list[ChatMessage] = self._prompt.format_messages(llm=self._llm, **prompt_args)
        extended: list[ChatMessage] = self._llm._extend_messages(messages)
        return extended

    def _call(self, llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        given = {name: value for name, value in (llm_kwargs or {}).items() if name not in _OURS}
        return {**self._wanted, **given}

    def _whole(self, response: ChatResponse) -> BaseModel:
        said = _answer_of(response)
        try:
            if isinstance(said, str):
                # It finds the JSON among other words, which a model without an enforced schema may write around it.
                found: BaseModel = PydanticOutputParser(self._output_cls).parse(said)
                return found
            return self._output_cls.model_validate(said)
        except ValueError as error:
            cut = " was cut at max_tokens, and" if (response.raw or {}).get("finish_reason") == "length" else ""
            # Not a ValueError, which LlamaIndex's synthesizers would take for an empty answer.
            raise BadGeneration(
                f"the answer{cut} is not a valid {self._output_cls.__name__}: {error}",
                failed_generation=said if isinstance(said, str) else None,
            ) from error

    def _part(self, response: ChatResponse) -> BaseModel | None:
        found = _partial_object(_answer_of(response))
        if not found:
            return None
        try:
            return self._output_cls.model_validate(found)
        except ValidationError:
            part: BaseModel = self._flexible.model_validate(found)
            return part


def tool_for(output_cls: type[BaseModel]) -> dict[str, Any]:
    """Return the arguments of a chat that force a call of a tool made from a class."""
    name, schema = name_for(output_cls), output_cls.model_json_schema()
    described = {"description": schema["description"]} if schema.get("description") else {}
    tool = {"type": "function", "function": {"name": name, **described, "parameters": schema}}
    return {"tools": [tool], "tool_choice": name}


def format_for(output_cls: type[BaseModel]) -> dict[str, Any]:
    """Return the arguments of a chat that make its answer follow a class's JSON schema.

    It is `strict` if all fields of all its objects are required: hosted providers enforce only strict schemas, and refuse a
    strict one with an optional field (platform.openai.com/docs/guides/structured-outputs).
    """
    schema = _close_json(output_cls.model_json_schema())
    made = {"name": name_for(output_cls), "schema": schema, **({"strict": True} if _is_strict(schema) else {})}
    return {"response_format": {"type": "json_schema", "json_schema": made}}


def name_for(output_cls: type[BaseModel]) -> str:
    """Return the name of a class in characters that servers accept; a generic one contains brackets."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", output_cls.__name__)[:64]


def _answer_of(response: ChatResponse) -> dict[str, Any] | str:
    calls = tool_calls_of(response.message)
    said: dict[str, Any] | str = calls[0].tool_kwargs if calls else response.message.content or ""
    return said


def _partial_object(said: dict[str, Any] | str) -> dict[str, Any]:
    """Return the part of an object that has arrived, including an unfinished text."""
    if isinstance(said, dict):
        return said
    try:
        found = from_json(said, allow_partial="trailing-strings")
    except (ValueError, TypeError):  # incomplete JSON; pydantic before 2.10 knows only True, which leaves that text out
        return arguments_of(said)
    return found if isinstance(found, dict) else {}


def _close_json(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema whose objects allow no other fields."""
    closed = copy.deepcopy(schema)
    for each in _objects(closed):
        if "properties" in each:
            each.setdefault("additionalProperties", False)
    return closed


def _is_strict(schema: dict[str, Any]) -> bool:
    return all(
        each.get("additionalProperties") is False and set(each["properties"]) == set(each.get("required", ()))
        for each in _objects(schema)
    )


def _objects(schema: Any) -> Generator[dict[str, Any], None, None]:
    """Yield the schemas of objects within a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _objects(each)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" or "properties" in schema:
        yield schema
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for each in value.values():
                yield from _objects(each)
        elif key not in ("default", "const", "enum", "examples"):
            yield from _objects(value)
