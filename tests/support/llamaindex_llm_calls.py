"""What the suite for LlamaIndex LLMs asks, with which tools and classes, and how it hears what is told of it."""

import base64
import inspect
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core.base.llms.types import ChatMessage, CitableBlock, CitationBlock, DocumentBlock, VideoBlock
    from llama_index.core.callbacks import CBEventType
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.llm import (
        LLMChatEndEvent,
        LLMChatInProgressEvent,
        LLMChatStartEvent,
        LLMCompletionEndEvent,
        LLMCompletionInProgressEvent,
        LLMCompletionStartEvent,
        LLMStructuredPredictEndEvent,
        LLMStructuredPredictInProgressEvent,
        LLMStructuredPredictStartEvent,
    )
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.tools import FunctionTool


CHATS = ("chat", "achat", "stream_chat", "astream_chat")
COMPLETIONS = ("complete", "acomplete", "stream_complete", "astream_complete")
TOOL_CHATS = ("chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools")
PREDICTS = (
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)
KEY = "hf_dontShowThisToAnybody"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
if COLLECTED:
    UNSENDABLE = (
        VideoBlock(video=b"not a film", video_mimetype="video/mp4"),
        DocumentBlock(data=b"%PDF-1.4", document_mimetype="application/pdf"),
        CitableBlock(title="a title", source="a source", content="a text"),
        CitationBlock(title="a title", source="a source", cited_content="a text", additional_location_info={}),
    )

    CHAT_EVENTS = (LLMChatStartEvent, LLMChatInProgressEvent, LLMChatEndEvent)
    COMPLETION_EVENTS = (LLMCompletionStartEvent, LLMCompletionInProgressEvent, LLMCompletionEndEvent)
    STRUCTURED_EVENTS = (
        LLMStructuredPredictStartEvent,
        LLMStructuredPredictInProgressEvent,
        LLMStructuredPredictEndEvent,
    )


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


class Mood(Enum):
    GLAD = "glad"
    SAD = "sad"


class Household(BaseModel):
    """Those who live together."""

    head: Person
    others: list[Person] = Field(default_factory=list)
    mood: Mood
    pet: str | None = None


def get_weather(city: str) -> str:
    """Say what the weather is like in a city."""
    return f"It is violet in {city}."


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def get_time() -> str:
    """Say what time it is."""
    return "half past violet"


if COLLECTED:
    WEATHER, MULTIPLY, TIME = (FunctionTool.from_defaults(each) for each in (get_weather, multiply, get_time))

    class Told(BaseEventHandler):
        """Keeps events of some kinds."""

        kinds: tuple[type, ...]
        events: list[Any] = []

        def handle(self, event: Any, **_: Any) -> None:
            if isinstance(event, self.kinds):
                self.events.append(event)


@contextmanager
def told(*kinds: type) -> Iterator[list[Any]]:
    """Give the list in which events arrive."""
    handler, root = Told(kinds=kinds, events=[]), get_dispatcher()
    root.add_event_handler(handler)
    try:
        yield handler.events
    finally:
        root.event_handlers = [each for each in root.event_handlers if each is not handler]


if COLLECTED:

    class Callbacks(BaseCallbackHandler):
        """Keeps the payloads of the older callbacks."""

        def __init__(self) -> None:
            super().__init__([], [])
            self.started: dict[str, dict[str, Any]] = {}
            self.ended: dict[str, dict[str, Any]] = {}

        def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **_):
            if event_type is CBEventType.LLM:
                self.started[event_id] = payload
            return event_id

        def on_event_end(self, event_type, payload=None, event_id="", **_):
            if event_type is CBEventType.LLM:
                self.ended[event_id] = payload

        def start_trace(self, trace_id=None):
            pass

        def end_trace(self, trace_id=None, trace_map=None):
            pass


async def call(llm: "FunctionCallingLLM", name: str, *given: Any, **named: Any) -> list[Any]:
    """Call a method in whichever form it has; returns all it gives, one for what is no stream."""
    result = getattr(llm, name)(*given, **named)
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncGenerator):
        return [each async for each in result]
    return list(result) if isinstance(result, Generator) else [result]


async def ask(llm: "FunctionCallingLLM", endpoint: str, text: str, **named: Any) -> list[Any]:
    """Ask by one of the eight endpoints."""
    return await call(llm, endpoint, text if endpoint in COMPLETIONS else [ChatMessage(content=text)], **named)


def text_of(response: Any) -> str:
    return (response.message.content if hasattr(response, "message") else response.text) or ""


def blocks(response: Any, kind: type) -> list[Any]:
    return [block for block in response.message.blocks if isinstance(block, kind)]


def images(body: Mapping[str, Any]) -> list[bytes]:
    """Return the images in a request of OpenAI's form."""
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [base64.b64decode(url.partition("base64,")[2]) for url in urls]


ENDPOINT = pytest.mark.parametrize("endpoint", [*CHATS, *COMPLETIONS])
CHAT = pytest.mark.parametrize("endpoint", CHATS)
TOOL_CHAT = pytest.mark.parametrize("endpoint", TOOL_CHATS)
PREDICT = pytest.mark.parametrize("predict", PREDICTS)


class Suite:
    """What a suite is told: `llm_class`, `llm_params`, and what the model can do."""

    prompt = "Tell me about a gate"
    """Answered with several tokens of text."""
    tool_prompt = "What is the result of get_weather in 'Paris'?"
    """Makes the model call one tool once, if it may."""
    parallel_prompt = "Call get_weather for 'Paris' and 'Rome'"
    """Makes it call one tool twice at once, if it may."""
    person_prompt = "Tell me of {who}, who is {years}."
    """From which a `Person` is made."""
    thinking_params: Mapping[str, Any] = {}
    """Fields with which the model thinks before it answers."""
    structured_ways: Sequence[Mapping[str, Any]] = ({},)
    """Fields for each way of getting an instance of a class."""
    supports_usage = True
    supports_images = True
    supports_thinking = False
    supports_parallel_tools = True
    supports_tool_choice = True

    @property
    def unsendable(self) -> Sequence[Any]:
        """Return blocks that must be refused, since they cannot be sent."""
        return UNSENDABLE

    @property
    def llm_class(self) -> "type[FunctionCallingLLM]":
        raise NotImplementedError

    @property
    def llm_params(self) -> dict[str, Any]:
        return {}

    @property
    def keyed_params(self) -> dict[str, Any]:
        """What gives the class `KEY`."""
        return {"api_key": KEY}

    def sent(self) -> list[dict[str, Any]]:
        """Return the requests that came to the model in this test, in OpenAI's form."""
        pytest.skip("what the model was sent is not known here")

    def make(self, **more: Any) -> "FunctionCallingLLM":
        return self.llm_class(**{**self.llm_params, **more})

    def needs(self, *features: str) -> None:
        for feature in features:
            if not getattr(self, f"supports_{feature}"):
                pytest.skip(f"not for a model without {feature.replace('_', ' ')}")

    @pytest.fixture
    def pixel(self, tmp_path) -> Path:
        path = tmp_path / "pixel.png"
        path.write_bytes(PIXEL)
        return path
