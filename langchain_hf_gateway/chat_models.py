"""ChatHFGateway: LangChain's `BaseChatModel` over a hf-gateway chain."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.tracers import BaseTracer
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr, model_validator

from hf_gateway._version import __version__
from hf_gateway.framework_base import ChatMixin, build_gateway
from hf_gateway.settings.chat import ChatArguments, ChatSettings
from hf_gateway.settings.config_file import read_chain
from hf_gateway.values.chat import ChatRequest, Sampling
from hf_gateway.values.event_loops import running_loop
from langchain_hf_gateway.errors import as_model_errors
from langchain_hf_gateway.messages import PROVIDER, chunk_of, last_chunk, message_of, to_openai
from langchain_hf_gateway.structured import Method, structured

if TYPE_CHECKING:
    from langchain_core.caches import BaseCache
    from langchain_core.callbacks import Callbacks
    from langchain_core.rate_limiters import BaseRateLimiter

    from hf_gateway.tasks.chat.gateway import ChatGateway


class ChatModelArguments(ChatArguments, total=False):
    """Keyword arguments of `ChatHFGateway`: those of a chat chain, and LangChain's own."""

    cache: "BaseCache | bool | None"
    verbose: bool
    callbacks: "Callbacks"
    tags: list[str] | None
    metadata: dict[str, Any] | None
    custom_get_token_ids: Callable[[str], list[int]] | None
    rate_limiter: "BaseRateLimiter | None"
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: ModelProfile | None


class ChatHFGateway(ChatMixin, ChatSettings, BaseChatModel):
    """A Hugging Face chat model, from the first of its targets that can answer.

    Setup:
        ```bash
        pip install "hf-gateway[langchain]"
        ```

    Example:
        ```python
        from langchain_hf_gateway import ChatHFGateway

        model = ChatHFGateway(
            model="meta-llama/Llama-3.1-8B-Instruct",
            targets=["hf:cerebras", "ollama:llama3.1"],
            temperature=0,
        )
        answer = model.invoke("How do I catch an exception?")
        print(answer.text, answer.response_metadata["hf_gateway"]["served_by"])
        ```

    Tools:
        ```python
        def multiply(a: int, b: int) -> int:
            '''Multiply two numbers.'''
            return a * b


        model.bind_tools([multiply]).invoke("What is 17 times 23?").tool_calls
        ```

    Structured output:
        ```python
        from pydantic import BaseModel


        class Person(BaseModel):
            name: str
            age: int


        model.with_structured_output(Person).invoke("Ada Lovelace died at 36.")
        ```

    Args:
        model: Hub id of the model, or a folder.
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

    The arguments of `BaseChatModel` are accepted, too. Those of `Sampling` may be set later, and may be given to a single call,
    as may `model`, `tools`, `tool_choice` and `response_format`; the others make the chain and are frozen.

    `invoke` returns a complete answer. It is streamed underneath, so that a cut or a stall is seen early, the next target starts
    afresh, and the server stops when a task is cancelled; `streaming=False` and `disable_streaming` change that for a chain of
    one target only. A target that cannot stream has the option `stream=False`, and `attempt_timeout` for its whole attempt where
    another one stands by. `stream` changes targets until the first content only; an answer that breaks off later is an error with
    the text so far in its `partial`, never a short answer. With `streaming=False`, as everywhere in LangChain, `stream` gives the
    answer in one piece.

    `profile` is what is known of the model at the first target, for `hf` by the router's catalogue, when it is first read. A
    running event loop gets what this machine knows already; `await asyncio.to_thread(lambda: model.profile)` has it looked up.

    Errors are hf-gateway's own, and at the same time the matching subclass of `langchain_core.exceptions.ModelError`.
    """

    _gateway: "ChatGateway" = PrivateAttr()
    _targets: list[dict[str, Any]] = PrivateAttr()

    @model_validator(mode="after")
    def _build_chain(self) -> Self:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        if self.disable_streaming is True and self.streaming is None:
            self.__dict__["streaming"] = False  # the only server of a chain may be one that cannot stream
        self._adopt(build_gateway(self, self.model))
        self._add_version("hf-gateway", __version__)
        if self.__dict__["profile"] is None:
            # BaseChatModel has just read it, and must get it without a network; `__getattr__` looks it up when it is read.
            del self.__dict__["profile"]
            self.model_fields_set.discard("profile")
        return self

    def _adopt(self, gateway: "ChatGateway") -> None:
        super()._adopt(gateway)
        self._targets = [target.to_dict() for target in gateway.targets]

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[ChatModelArguments]) -> Self:
        """Read `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            changes: arguments that override the file's, and LangChain's own.

        Raises:
            ConfigError: a chain that the file does not have, or settings that make no sense, with file and line.
        """
        # The file is for every framework, so LangChain's own arguments have no place in it.
        return cls(**{**read_chain(name, ChatSettings, path), **changes})

    if not TYPE_CHECKING:  # or the type checker would believe in any attribute

        def __getattr__(self, name: str) -> Any:
            """Look up `profile` when it is first read: the router may have to be called, which no constructor should do.

            Pydantic keeps a field in the instance's `__dict__`, so a missing one is looked up here, in subclasses and copies too.
            A property of that name would be taken for the field's default in every subclass.
            """
            if name != "profile":
                return super().__getattr__(name)
            found = self._known_profile()
            if found is not None:
                self.__dict__["profile"] = found
            return found

    def _known_profile(self) -> ModelProfile | None:
        """Return the known profile of the model at the first target; uses the network only outside of an event loop."""
        # Like BaseChatModel: a model never fails because of an optional field. Monitors of event loops forbid reading a file.
        with contextlib.suppress(Exception):
            known = self._gateway.capabilities(look_up=running_loop() is None)
            said = {
                "max_input_tokens": known.context,
                "tool_calling": known.tools,
                "structured_output": known.structured_output,
                "image_inputs": known.images,
            }
            return cast("ModelProfile", {name: value for name, value in said.items() if value is not None}) or None
        return None

    @property
    def _llm_type(self) -> str:
        return "hf-gateway-chat"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """What an answer depends on: the key in LangChain's cache, so that another model or target has another key."""
        targets = [dict(target) for target in self._targets]
        context = {} if self.context_window is None else {"context_window": self.context_window}
        return {"model": self.model, "revision": self.revision, "targets": targets, **context, **self._set_sampling()}

    def _set_sampling(self) -> dict[str, Any]:
        """Return the fields of `Sampling` that are set, unchecked: they may have been assigned to."""
        fields = {name: getattr(self, name) for name in Sampling.model_fields}
        return {name: value for name, value in fields.items() if value is not None}

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=self._stop(stop), **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=self._stop(stop), **kwargs)
        params["ls_provider"] = PROVIDER
        if "ls_model_name" not in params and (model := self._first_model) is not None:
            params["ls_model_name"] = model
        return params

    def _stop(self, stop: list[str] | None) -> list[str] | None:
        own = [self.stop] if isinstance(self.stop, str) else self.stop
        return own if stop is None else stop

    @property
    def _first_model(self) -> str | None:
        """The chain's model, or the first target's if each target has its own."""
        return self.model or self._gateway.targets[0].model

    def _should_stream(
        self,
        *,
        async_api: bool,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> bool:
        """Return whether `invoke` passes tokens on. LangChain does so whenever streaming=True; here only if a handler wants them.

        Otherwise `_generate` streams internally, so that an answer that broke off can be repeated by another target.
        """
        if self.streaming is not True or kwargs.get("stream"):
            return super()._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)
        handlers = run_manager.handlers if run_manager else []
        return not self._streaming_disabled(**kwargs) and any(_takes_tokens(handler) for handler in handlers)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's callbacks are called by itself
        **kwargs: Any,
    ) -> ChatResult:
        with as_model_errors():
            result = self._gateway.chat(self._request(messages, stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=message_of(result))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        with as_model_errors():
            result = await self._gateway.achat(self._request(messages, stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=message_of(result))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with as_model_errors(), self._gateway.stream(self._request(messages, stop, kwargs)) as events:
            for event in events:
                yield ChatGenerationChunk(message=chunk_of(event, self.output_version))
            yield ChatGenerationChunk(message=last_chunk(events.result))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with as_model_errors():
            async with self._gateway.astream(self._request(messages, stop, kwargs)) as events:
                async for event in events:
                    yield ChatGenerationChunk(message=chunk_of(event, self.output_version))
                yield ChatGenerationChunk(message=last_chunk(events.result))

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, call: dict[str, Any]) -> ChatRequest:
        """Build the chain's request. call: a call's own arguments from LangChain. Raises InvalidRequest."""
        own = {name: value for name, value in {**call, "stop": stop}.items() if value is not None}
        own.pop("stream", None)  # LangChain's own switch
        return ChatRequest.of(to_openai(messages), **{**self._set_sampling(), **own})

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools that the model may call.

        Args:
            tools: functions, Pydantic classes, TypedDicts, LangChain's tools, or schemas in OpenAI's or Anthropic's form.
            tool_choice: "auto", "none", a tool's name, or {"type": "function", "function": {"name": ...}}; "any", "required" and
                True mean that some tool must be called. None and False leave it to the model.
            strict: whether the server enforces the schema of the arguments, if it can.
            parallel_tool_calls: whether the model may call several tools at once, if the server supports the setting.
            kwargs: other arguments of every call, such as `temperature` or `response_format`.
        """
        own = {"tool_choice": tool_choice or None, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(
            tools=[convert_to_openai_tool(tool, strict=strict) for tool in tools],
            **{name: value for name, value in own.items() if value is not None},
            **kwargs,
        )

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers are instances of a schema.

        Args:
            schema: a Pydantic class, for instances of it; a TypedDict or a JSON schema with a title, for dicts.
            method: "function_calling" requests a tool call; "json_schema" makes the server enforce the schema; "json_mode"
                requests any JSON, so that the prompt must describe it.
            include_raw: return {"raw": message, "parsed": ..., "parsing_error": ...} instead of raising errors of parsing.
            strict: whether the server enforces the schema exactly, if it can.
            kwargs: other arguments of every call, such as `temperature`.
        """
        return structured(self, schema, method, include_raw=include_raw, strict=strict, call=kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids of a text's tokens. Raises NotImplementedError if the model's own tokenizer is not on this machine."""
        from hf_gateway.engines import token_count

        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        ids = token_count.encode_text(text, self._first_model, self.revision)
        if ids is None:
            raise NotImplementedError(
                f"the tokenizer of {self._first_model} is not on this machine, so its tokens are not known; "
                "get_num_tokens estimates how many there are, and custom_get_token_ids= names a tokenizer"
            )
        return ids

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens, by the model's own tokenizer; an estimate if it is not on this machine."""
        from hf_gateway.engines import token_count

        if self.custom_get_token_ids is not None:
            return len(self.custom_get_token_ids(text))
        return token_count.count_tokens(text, self._first_model, self.revision)


def _takes_tokens(handler: BaseCallbackHandler) -> bool:
    """Return whether a handler wants tokens: LangChain's event streams and users' handlers do, plain tracers do not."""
    if isinstance(handler, _StreamingCallbackHandler):
        return True
    heedless = (BaseCallbackHandler.on_llm_new_token, AsyncCallbackHandler.on_llm_new_token)
    return not isinstance(handler, BaseTracer) and type(handler).on_llm_new_token not in heedless
