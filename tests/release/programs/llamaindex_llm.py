"""What a user writes with `HFGatewayLLM`: answers, streams, tools, structured output."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from hf_gateway.errors import StreamInterrupted
from llamaindex_hf_gateway import HFGatewayLLM


class Colour(BaseModel):
    name: str
    wavelength_nm: float


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def model() -> HFGatewayLLM:
    return HFGatewayLLM(model="m", targets=["hf", "ollama"], temperature=0, max_tokens=50, context_window=4096)


def answer(llm: HFGatewayLLM, question: str) -> str:
    messages = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), ChatMessage(content=question)]
    response = assert_type(llm.chat(messages), ChatResponse)
    return response.message.content or ""


def completion(llm: HFGatewayLLM, prompt: str) -> str:
    response = assert_type(llm.complete(prompt), CompletionResponse)
    return response.text


def pieces(llm: HFGatewayLLM, question: str) -> Iterator[str]:
    try:
        for response in llm.stream_chat([ChatMessage(content=question)]):
            yield assert_type(response, ChatResponse).delta or ""
    except StreamInterrupted as error:
        yield assert_type(error.partial, str)


async def apieces(llm: HFGatewayLLM, question: str) -> AsyncIterator[str]:
    async for response in await llm.astream_complete(question):
        yield assert_type(response, CompletionResponse).delta or ""


def called(llm: HFGatewayLLM, question: str) -> list[str]:
    tools = [FunctionTool.from_defaults(multiply)]
    response = llm.chat_with_tools(tools, user_msg=question)
    return [call.tool_name for call in llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)]


def colour(llm: HFGatewayLLM, question: str) -> str:
    return assert_type(llm.structured_predict(Colour, PromptTemplate("{question}"), question=question), Colour).name


def settings() -> str:
    llm = assert_type(HFGatewayLLM.from_config("talk", temperature=0.2, num_output=64), HFGatewayLLM)
    states = [status.breaker for status in llm.gateway.status()]
    llm.gateway.close()
    return f"{llm.model} {llm.temperature} {llm.metadata.context_window} {llm.metadata.model_name} {states}"
