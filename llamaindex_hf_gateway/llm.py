"""HFGatewayLLM: LlamaIndex's `FunctionCallingLLM` over a hf-gateway chain."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar, Unpack

from llama_index.core.base.llms.generic_utils import (
    achat_to_completion_decorator,
    astream_chat_to_completion_decorator,
    chat_to_completion_decorator,
    stream_chat_to_completion_decorator,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms import loading
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.program.utils import get_program_for_llm
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import BasePydanticProgram, PydanticProgramMode
from pydantic import BaseModel, Field, PrivateAttr, model_serializer, model_validator

from hf_gateway.errors import BadGeneration
from hf_gateway.framework_base import ChatMixin, build_gateway
from hf_gateway.settings.chat import ChatArguments, ChatSettings
from hf_gateway.settings.config_file import read_chain
from hf_gateway.values.chat import ChatRequest
from llamaindex_hf_gateway.messages import arguments_of, call_id, reads_files, to_openai, tool_calls_of
from llamaindex_hf_gateway.responses import ResponseBuilder
from llamaindex_hf_gateway.stream_cleanup import closes_what_it_opens, closing_with
from llamaindex_hf_gateway.structured import StructuredProgram, Way

if TYPE_CHECKING:
    from dataclasses import InitVar

    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.types import BaseOutputParser

    from hf_gateway.tasks.chat.gateway import ChatGateway

Count = Annotated[int, Field(gt=0)]

MIN_PROMPT_TOKENS = 2000
"""Minimum of a known context that `max_tokens` leaves for prompts; half of it for a context below twice as many."""

dispatcher = get_dispatcher(__name__)

# Fields that are excluded from dicts because they are secret or of this machine; timeouts and retries of a chat are included.
_LEFT_OUT = {"api_key", "config"}

Method = TypeVar("Method", bound=Callable[..., Any])
Output = TypeVar("Output", bound=BaseModel)
"""What `structured_predict` makes: an instance of the class that it is called with."""


def reports_chat(method: Method) -> Method:
    """Decorate a method with LlamaIndex's callback for chats, which by itself hides the method's types from type checkers."""
    return llm_chat_callback()(method)  # type: ignore[no-any-return]


def reports_completion(method: Method) -> Method:
    """Decorate a method with LlamaIndex's callback for completions, likewise."""
    return llm_completion_callback()(method)  # type: ignore[no-any-return]


class LLMArguments(ChatArguments, total=False):
    """Keyword arguments of `HFGatewayLLM`: those of a chat chain, and LlamaIndex's own."""

    model_name: str | None
    num_output: int | None
    is_function_calling_model: bool
    structured_output: Way
    callback_manager: "CallbackManager"
    rate_limiter: Any
    system_prompt: str | None
    messages_to_prompt: Callable[[Sequence[ChatMessage]], str] | None
    completion_to_prompt: Callable[[str], str] | None
    output_parser: "BaseOutputParser | None"
    pydantic_program_mode: PydanticProgramMode
    query_wrapper_prompt: BasePromptTemplate | None


class HFGatewayLLM(ChatMixin, ChatSettings, FunctionCallingLLM):  # type: ignore[misc]
    """A Hugging Face chat model, from the first of its targets that can serve.

    `pip install "hf-gateway[llamaindex]"`

    Args:
        model: Hub id of the model, or a folder; `model_name=` is accepted too.
        targets: where to go, in this order, such as "local", "hf" or "tei:http://localhost:8080".
        temperature: sampling temperature; 0 for the most likely token each time.
        top_p: sample from the most likely tokens that together have this probability.
        top_k: sample from this many of the most likely tokens.
        max_tokens: maximum tokens of the answer.
        stop: strings before which the answer ends.
        seed: seed for answers that can be repeated, if the server supports it.
        frequency_penalty: makes tokens less likely the more often they have occurred.
        presence_penalty: makes tokens less likely once they have occurred.
        min_p: sample from the tokens with at least this fraction of the most likely one's probability.
        repetition_penalty: factor against repetition, 1 for no change.
        logprobs: whether to return the log probabilities of the tokens.
        top_logprobs: how many of the most likely tokens at each place to return log probabilities for.
        reasoning_effort: how much to think before answering: "low", "medium", "high"; True, False or "none".
        parallel_tool_calls: whether the model may call several tools at once.
        extra_body: fields added to the body for OpenAI-compatible servers.
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds without any progress of an answer, until its first content.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        first_content_timeout: seconds until the first content of a streamed answer, where another target could take over.
        stall_timeout: seconds between two pieces of content of a streamed answer.
        patience: seconds of a target's Retry-After that are waited out before another target is asked.
        streaming: False for an answer that is not streamed underneath, from the only target.
        context_window: tokens of prompt and answer together.
        next_on_content_filter: ask the next target when a provider's content policy refuses.
        num_output: tokens that LlamaIndex keeps free for an answer; without it `max_tokens`.
        is_function_calling_model: whether the model can call tools.
        structured_output: how an answer is held to a class: "function_calling" or "json_schema".

    The arguments of LlamaIndex's `LLM` are accepted, too.

    Examples:
        ```python
        from llama_index.core import Settings
        from llamaindex_hf_gateway import HFGatewayLLM

        Settings.llm = HFGatewayLLM(model="meta-llama/Llama-3.1-8B-Instruct", targets=["hf", "ollama"])
        print(Settings.llm.complete("Why is the sky blue?"))
        ```

    A response's `raw` contains the target that answered, all attempts, and the usage. If no target could
    answer, the error is a `hf_gateway.errors.GatewayError`.
    """

    context_window: Count | None = Field(
        default=None,
        frozen=True,
        description="Tokens of prompt and answer together; by default from the router's catalogue or the model's files on this "
        "machine. Ollama receives it as num_ctx.",
    )
    num_output: Count | None = Field(
        default=None, description="Tokens that LlamaIndex reserves for an answer; by default max_tokens."
    )
    is_function_calling_model: bool = Field(
        default=True, description="Whether the model can call tools; agents choose their strategy by it."
    )
    structured_output: Way = Field(
        default="function_calling",
        description=(
            "How an answer is made an instance of a class, unless pydantic_program_mode decides. A forced tool call works with "
            "most hosted models, and is what LlamaIndex does; a JSON schema is stricter, on servers that support it: vLLM, TGI, "
            "llama.cpp, LM Studio, Ollama, some providers."
        ),
    )

    if TYPE_CHECKING:
        model_name: InitVar[str | None] = None
        """Another word for `model`."""

    _gateway: "ChatGateway" = PrivateAttr()
    _known_context: int | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _take_model_name_as_model(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "model_name" in values and "model" not in values:
            return {("model" if name == "model_name" else name): value for name, value in values.items()}
        return values

    def model_post_init(self, context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is connected to."""
        super().model_post_init(context)
        self._adopt(build_gateway(self, self.model))

    def _adopt(self, gateway: "ChatGateway") -> None:
        super()._adopt(gateway)
        # From files, and `metadata` is read on event loops, at every call.
        self._known_context = gateway.capabilities().context

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which `load_llm` finds this class."""
        return "HFGatewayLLM"

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[LLMArguments]) -> Self:
        """Read `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            changes: arguments that override the file's, and LlamaIndex's own.

        Raises:
            ConfigError: a chain that the file does not have, or settings that make no sense, with file and line.
        """
        # The file is for every framework, so LlamaIndex's own arguments have no place in it.
        return cls(**{**read_chain(name, ChatSettings, path), **changes})

    @property
    def metadata(self) -> LLMMetadata:
        """The facts that LlamaIndex reads about a model. Reads no file and sends no request."""
        context = self.context_window or self._known_context
        reserved = self.num_output or self.max_tokens or DEFAULT_NUM_OUTPUTS
        if context is None:
            # A model with such long answers accepts more than the few tokens that LlamaIndex assumes of all models.
            context = DEFAULT_CONTEXT_WINDOW + max(0, reserved - DEFAULT_NUM_OUTPUTS)
        elif self.num_output is None:
            # max_tokens is the maximum of an answer; it must not be the whole context, or there is no room for a prompt.
            reserved = min(reserved, max(context // 2, context - MIN_PROMPT_TOKENS))
        return LLMMetadata(
            context_window=context,
            num_output=reserved,
            is_chat_model=True,
            is_function_calling_model=self.is_function_calling_model,
            model_name=self.model or self._gateway.targets[0].model or "unknown",
        )

    def to_payload(self) -> dict[str, Any]:
        """Describe this model for events, without keys."""
        return {**super().to_payload(), "targets": [target.label for target in self._gateway.targets]}

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: Any) -> dict[str, Any]:
        """Return the fields, from which `load_llm` builds the same model; keys are left out."""
        settings = {name: getattr(self, name) for name, field in ChatSettings.model_fields.items() if field.exclude}
        kept = {name: value for name, value in settings.items() if name not in _LEFT_OUT}
        return {**handler(self), **kept, "class_name": self.class_name()}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields; connections and keys are left out."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the chain again. The base class would swallow an error of that, and leave an unusable object."""
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    @reports_chat
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation.

        kwargs: for this call only, by the names of `Sampling` (temperature, stop, …), and tools, tool_choice, response_format,
        model. Raises GatewayError.
        """
        return self._chat(messages, **kwargs)

    @reports_chat
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""
        return await self._achat(messages, **kwargs)

    @closes_what_it_opens
    @reports_chat
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        """Answer piece by piece: each response has the whole text so far, its `delta` the new text, and the last one `raw`.

        Raises like `chat`, and StreamInterrupted for an answer that breaks off. Closing it early closes the connection.
        """
        return self._stream_chat(messages, **kwargs)

    @closes_what_it_opens
    @reports_chat
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        """Like `stream_chat`, without blocking the event loop."""
        return await self._astream_chat(messages, **kwargs)

    @reports_completion
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a text.

        Args:
            prompt: the text.
            formatted: whether it is in the model's own prompt format already.
            kwargs: arguments of this call, as for `chat`.
        """
        return chat_to_completion_decorator(self._chat)(self._prompt(prompt, formatted), **kwargs)

    @reports_completion
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a text without blocking the event loop.

        Args:
            prompt: the text.
            formatted: whether it is in the model's own prompt format already.
            kwargs: arguments of this call, as for `chat`.
        """
        return await achat_to_completion_decorator(self._achat)(self._prompt(prompt, formatted), **kwargs)

    @closes_what_it_opens
    @reports_completion
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """Complete a text piece by piece, like `stream_chat`.

        Args:
            prompt: the text.
            formatted: whether it is in the model's own prompt format already.
            kwargs: arguments of this call, as for `chat`.
        """
        stream = stream_chat_to_completion_decorator(self._stream_chat)
        return stream(self._prompt(prompt, formatted), **kwargs)  # type: ignore[no-any-return]

    @closes_what_it_opens
    @reports_completion
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Complete a text piece by piece without blocking the event loop.

        Args:
            prompt: the text.
            formatted: whether it is in the model's own prompt format already.
            kwargs: arguments of this call, as for `chat`.
        """
        stream = astream_chat_to_completion_decorator(self._astream_chat)
        return await stream(self._prompt(prompt, formatted), **kwargs)  # type: ignore[no-any-return]

    # The callbacks report these four once, as a chat or as a completion; if the public methods called each other, they would
    # count the tokens twice, and a rate limiter the calls.

    def _chat(self, messages: Sequence[ChatMessage], **call: Any) -> ChatResponse:
        request = self._request(messages, call)
        return ResponseBuilder(request).whole(self._gateway.chat(request))

    async def _achat(self, messages: Sequence[ChatMessage], **call: Any) -> ChatResponse:
        request = await self._arequest(messages, call)
        return ResponseBuilder(request).whole(await self._gateway.achat(request))

    def _stream_chat(self, messages: Sequence[ChatMessage], **call: Any) -> Generator[ChatResponse, None, None]:
        request = self._request(messages, call)
        stream, reader = closing_with(self._gateway.stream(request)), ResponseBuilder(request)

        def gen() -> Generator[ChatResponse, None, None]:
            with stream:
                yield from map(reader.piece, stream)
            yield reader.whole(stream.result, delta="")

        return gen()

    async def _astream_chat(self, messages: Sequence[ChatMessage], **call: Any) -> AsyncGenerator[ChatResponse, None]:
        request = await self._arequest(messages, call)
        stream, reader = closing_with(self._gateway.astream(request)), ResponseBuilder(request)

        async def gen() -> AsyncGenerator[ChatResponse, None]:
            async with stream:
                async for event in stream:
                    yield reader.piece(event)
            yield reader.whole(stream.result, delta="")

        return gen()

    def _request(self, messages: Sequence[ChatMessage], call: Mapping[str, Any]) -> ChatRequest:
        return ChatRequest.of(to_openai(messages), self.sampling(), **call)

    async def _arequest(self, messages: Sequence[ChatMessage], call: Mapping[str, Any]) -> ChatRequest:
        if reads_files(messages):
            return await asyncio.to_thread(self._request, messages, call)
        return self._request(messages, call)

    def _prompt(self, prompt: str, formatted: bool) -> str:
        return prompt if formatted else str(self.completion_to_prompt(prompt))

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002 - LlamaIndex prints
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of `chat`; an explicit `tool_choice` takes precedence over tool_required."""
        messages = list(chat_history or ())
        if user_msg:
            messages.append(
                ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
            )
        if not tools:
            return {"messages": messages, **kwargs}
        choice = kwargs.pop("tool_choice", None) or ("required" if tool_required else None)
        return {
            "messages": messages,
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "parallel_tool_calls": allow_parallel_tool_calls,
            **({"tool_choice": choice} if choice is not None else {}),
            **kwargs,
        }

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,  # noqa: ARG002 - LlamaIndex's signature
    ) -> list[ToolSelection]:
        """Return the tool calls of a response, or of a piece of one, with the readable part of unfinished arguments.

        Args:
            response: the response.
            error_on_no_tool_call: whether to raise an error if it has no calls.
            kwargs: not used.

        Raises:
            BadGeneration: it has no calls.
        """
        calls = tool_calls_of(response.message)
        if not calls and error_on_no_tool_call:
            text = response.message.content or ""
            raise BadGeneration(f"the model called no tool; it said: {text[:200]!r}", failed_generation=text)
        return [
            ToolSelection(tool_id=call_id(call), tool_name=call.tool_name, tool_kwargs=arguments_of(call.tool_kwargs))
            for call in calls
        ]

    def structured_predict(
        self,
        output_cls: type[Output],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Output:
        """Return an instance of a class.

        Args:
            output_cls: the class.
            prompt: the prompt.
            llm_kwargs: arguments of the call.
            prompt_args: values of the prompt's variables.

        Raises:
            BadGeneration: the answer is not an instance; other GatewayErrors like `chat`.
        """
        dispatcher.event(_structured_start(output_cls, prompt, prompt_args))
        output = self._program(output_cls, prompt)(llm_kwargs=dict(llm_kwargs or {}), **prompt_args)
        dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output  # type: ignore[no-any-return]

    async def astructured_predict(
        self,
        output_cls: type[Output],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Output:
        """Like `structured_predict`, without blocking the event loop.

        Args:
            output_cls: the class.
            prompt: the prompt.
            llm_kwargs: arguments of the call.
            prompt_args: values of the prompt's variables.
        """
        dispatcher.event(_structured_start(output_cls, prompt, prompt_args))
        output = await self._program(output_cls, prompt).acall(llm_kwargs=dict(llm_kwargs or {}), **prompt_args)
        dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output  # type: ignore[no-any-return]

    def _structured_stream_call(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[BaseModel, None, None]:
        program = self._program(output_cls, prompt)
        return program.stream_call(llm_kwargs=dict(llm_kwargs or {}), **prompt_args)  # type: ignore[no-any-return]

    async def _structured_astream_call(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[BaseModel, None]:
        program = self._program(output_cls, prompt)
        return await program.astream_call(llm_kwargs=dict(llm_kwargs or {}), **prompt_args)  # type: ignore[no-any-return]

    def _program(self, output_cls: type[BaseModel], prompt: BasePromptTemplate) -> BasePydanticProgram:
        """Return the program that makes instances: ours, or LlamaIndex's if `pydantic_program_mode` names another way."""
        mode = self.pydantic_program_mode
        if mode == PydanticProgramMode.DEFAULT and self.structured_output == "json_schema":
            return StructuredProgram(self, output_cls, prompt, "json_schema")
        if mode == PydanticProgramMode.FUNCTION or (
            mode == PydanticProgramMode.DEFAULT and self.is_function_calling_model
        ):
            return StructuredProgram(self, output_cls, prompt, "function_calling")
        return get_program_for_llm(output_cls, prompt, self, pydantic_program_mode=mode)


def _structured_start(
    output_cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
) -> LLMStructuredPredictStartEvent:
    return LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)


# LlamaIndex has no hook for it; `load_llm` looks into this table.
loading.RECOGNIZED_LLMS[HFGatewayLLM.class_name()] = HFGatewayLLM
