"""What a user writes with `ChatHFGateway`: answers, streams, tools, structured output."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr

from hf_gateway.errors import StreamInterrupted
from langchain_hf_gateway import ChatHFGateway


class Colour(BaseModel):
    name: str
    wavelength_nm: float


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def model(key: str | None = None) -> ChatHFGateway:
    secret = SecretStr(key) if key is not None else None
    return ChatHFGateway(model="m", targets=["hf", "ollama"], api_key=secret, temperature=0, max_tokens=50)


def answer(chat: ChatHFGateway, question: str) -> tuple[str, int]:
    messages: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage(question)]
    message = assert_type(chat.invoke(messages), AIMessage)
    usage = message.usage_metadata
    return message.text, usage["output_tokens"] if usage else 0


def pieces(chat: ChatHFGateway, question: str) -> Iterator[str]:
    try:
        for chunk in chat.stream(question):
            yield assert_type(chunk, AIMessageChunk).text
    except StreamInterrupted as error:
        yield assert_type(error.partial, str)


async def apieces(chat: ChatHFGateway, question: str) -> AsyncIterator[str]:
    async for chunk in chat.astream(question):
        yield assert_type(chunk, AIMessageChunk).text


def called(chat: ChatHFGateway, question: str) -> list[str]:
    message = assert_type(chat.bind_tools([multiply]).invoke(question), AIMessage)
    return [call["name"] for call in message.tool_calls]


def colour(chat: ChatHFGateway, question: str) -> str:
    found = chat.with_structured_output(Colour).invoke(question)
    assert isinstance(found, Colour)
    return found.name


def chained(chat: ChatHFGateway, topic: str) -> str:
    prompt = ChatPromptTemplate.from_messages([("human", "A line about {topic}.")])
    told: str = (prompt | chat | StrOutputParser()).invoke({"topic": topic})
    return told


def settings() -> str:
    chat = assert_type(ChatHFGateway.from_config("talk", temperature=0.2), ChatHFGateway)
    assert_type((chat.model, chat.temperature, chat.max_tokens), tuple[str | None, float | None, int | None])
    states = [status.breaker for status in chat.gateway.status()]
    chat.gateway.close()
    return f"{chat.model} {chat.temperature} {chat.max_tokens} {states} {chat.get_num_tokens('a text')}"
