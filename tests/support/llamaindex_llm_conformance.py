"""What LlamaIndex has no suite for: everything a `FunctionCallingLLM` owes its framework. Subclass `LLMConformance`.

It asks for answers that any model gives which does what it is told, and knows nothing of who gives them. A comment names
the fault elsewhere that a test stands against.
"""

import asyncio
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from blockbuster import blockbuster_ctx

from tests.support.late import COLLECTED
from tests.support.llamaindex_llm_abilities import Abilities
from tests.support.llamaindex_llm_calls import CHAT, CHATS, COMPLETIONS, ENDPOINT, KEY, ask, call, text_of, told

if COLLECTED:
    from llama_index.core import Settings
    from llama_index.core.base.llms.types import (
        ChatMessage,
        MessageRole,
    )
    from llama_index.core.callbacks import CallbackManager, EventPayload, TokenCountingHandler
    from llama_index.core.llms.loading import load_llm
    from llama_index.core.prompts import PromptTemplate

    from tests.support.llamaindex_conformance import Counting
    from tests.support.llamaindex_llm_calls import CHAT_EVENTS, COMPLETION_EVENTS, WEATHER, Callbacks


class LLMConformance(Abilities):
    """What LlamaIndex relies on. Subclass it and give `llm_class` and `llm_params`; `Suite` says what else can be told."""

    # Answers

    @ENDPOINT
    async def test_every_endpoint_answers(self, endpoint):
        last = (await ask(self.make(), endpoint, self.prompt))[-1]
        assert text_of(last).strip()
        if endpoint in CHATS:
            assert last.message.role is MessageRole.ASSISTANT

    @ENDPOINT
    async def test_a_stream_gives_all_so_far_and_what_is_new(self, endpoint):
        responses = await ask(self.make(), endpoint, self.prompt)
        if "stream" not in endpoint:
            assert len(responses) == 1
            return
        texts, deltas = [text_of(each) for each in responses], [each.delta for each in responses]
        assert texts == ["".join(deltas[: n + 1]) for n in range(len(deltas))]
        assert texts[-1].strip()
        assert len(deltas) > 2

    @ENDPOINT
    async def test_the_answer_comes_with_its_tokens_in_plain_types(self, endpoint):
        self.needs("usage")
        last = (await ask(self.make(), endpoint, self.prompt))[-1]
        usage = json.loads(json.dumps(last.raw))["usage"]
        assert usage["prompt_tokens"] > 0 < usage["completion_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    @ENDPOINT
    async def test_what_is_said_for_one_call_holds_for_one_call(self, endpoint):
        llm = self.make()
        short = await ask(llm, endpoint, self.prompt, max_tokens=1)
        long = await ask(llm, endpoint, self.prompt)
        assert len(text_of(short[-1])) < len(text_of(long[-1]))

    async def test_prompts_may_be_turned_before_they_are_sent_unless_they_are_formatted(self):
        # Ollama ignores both, HuggingFaceLLM does in a stream.
        llm = self.make(completion_to_prompt=lambda prompt: f"<<{prompt}>>")
        for endpoint in COMPLETIONS:
            await call(llm, endpoint, "foo")
            await call(llm, endpoint, "foo", formatted=True)
        assert [body["messages"][0]["content"] for body in self.sent()] == ["<<foo>>", "foo"] * 4

    async def test_as_a_setting_it_serves_prompts(self, monkeypatch):
        # llama_index#10051 and its like: "No API key found for OpenAI", with a model of one's own.
        monkeypatch.setattr(Settings, "_llm", None)
        Settings.llm = self.make(system_prompt="Be brief.")
        template = PromptTemplate("Tell me about {what}")
        assert Settings.llm.predict(template, what="a gate").strip()
        assert (await Settings.llm.apredict(template, what="a gate")).strip()
        assert "".join(Settings.llm.stream(template, what="a gate")).strip()
        assert "".join([each async for each in await Settings.llm.astream(template, what="a gate")]).strip()
        assert [message["role"] for message in self.sent()[-1]["messages"]] == ["system", "user"]

    # Events

    @ENDPOINT
    async def test_every_call_is_announced_and_reported_once(self, endpoint):
        # HuggingFaceInferenceAPI: no events at all. A completion that calls the public chat is told of twice.
        callbacks = Callbacks()
        llm = self.make(callback_manager=CallbackManager([callbacks]))
        kinds = CHAT_EVENTS if endpoint in CHATS else COMPLETION_EVENTS
        with told(*CHAT_EVENTS, *COMPLETION_EVENTS) as events:
            responses = await ask(llm, endpoint, self.prompt, temperature=0.5)
        start, *between, end = events
        assert [type(event) for event in events] == [kinds[0], *[kinds[1]] * len(between), kinds[2]]
        assert [event.response for event in between] == (responses if "stream" in endpoint else [])
        assert end.response == responses[-1]
        assert (start.model_dict, start.additional_kwargs) == (llm.to_payload(), {"temperature": 0.5})
        assert len({event.span_id for event in events}) == 1
        assert start.span_id.startswith(f"{type(llm).__name__}.{endpoint}-")
        ((payload,), (ended,)) = callbacks.started.values(), callbacks.ended.values()
        assert payload[EventPayload.SERIALIZED] == llm.to_payload()
        assert ended[EventPayload.RESPONSE if endpoint in CHATS else EventPayload.COMPLETION] == responses[-1]

    @CHAT
    async def test_a_call_that_fails_is_reported_too(self, endpoint):
        callbacks = Callbacks()
        llm = self.make(callback_manager=CallbackManager([callbacks]))
        with pytest.raises(Exception) as failure:
            await call(llm, endpoint, [ChatMessage(blocks=[self.unsendable[0]])])
        assert list(callbacks.ended) == list(callbacks.started)
        assert [payload[EventPayload.EXCEPTION] for payload in callbacks.ended.values()] == [failure.value]

    @ENDPOINT
    async def test_the_token_counter_gets_true_counts(self, endpoint):
        self.needs("usage")
        counter = TokenCountingHandler(tokenizer=lambda _: [0] * 100_000)
        llm = self.make(callback_manager=CallbackManager([counter]))
        usage = (await ask(llm, endpoint, self.prompt))[-1].raw["usage"]
        assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )

    @ENDPOINT
    async def test_the_rate_limiter_is_asked_once_a_call(self, endpoint):
        limiter = Counting()
        await ask(self.make(rate_limiter=limiter), endpoint, self.prompt)
        assert limiter.acquired == 1

    # Writing down, metadata

    @pytest.mark.parametrize("through", ["dict", "json", "load_llm", "pickle", "pickle after use"])
    def test_it_survives_being_written_down(self, through):
        # HuggingFaceInferenceAPI cannot be rebuilt from its own dict.
        llm = self.make(system_prompt="Be brief.", max_tokens=77)
        if through == "pickle after use":
            llm.complete(self.prompt)
        rebuilt = {
            "dict": lambda: type(llm).from_dict(llm.to_dict()),
            "json": lambda: type(llm).from_json(llm.to_json()),
            "load_llm": lambda: load_llm(llm.to_dict()),
        }.get(through, lambda: pickle.loads(pickle.dumps(llm)))()
        assert type(rebuilt) is type(llm)
        assert rebuilt.to_dict() == llm.to_dict()
        assert (rebuilt.system_prompt, rebuilt.max_tokens) == ("Be brief.", 77)
        assert rebuilt.complete(self.prompt).text.strip()

    @pytest.mark.parametrize("shown", ["to_dict", "to_json", "to_payload", "__repr__", "__getstate__", "pickle"])
    def test_a_key_is_never_shown(self, shown):
        # HuggingFaceInferenceAPI: the token is in to_dict (llama_index#12853).
        llm = self.make(**self.keyed_params)
        assert KEY not in str(pickle.dumps(llm) if shown == "pickle" else getattr(llm, shown)())

    async def test_its_metadata_is_there_without_asking_anybody(self):
        # Ollama posts a request, within the event loop, too.
        llm = self.make(max_tokens=77)
        with blockbuster_ctx():
            metadata = llm.metadata
        assert (metadata.is_chat_model, metadata.num_output) == (True, 77)
        assert metadata.context_window > 0
        assert llm.to_payload()["class_name"] == self.llm_class.class_name() != "base_component"
        assert self.sent() == []

    def test_its_context_window_and_its_tools_can_be_said(self):
        metadata = self.make(context_window=12_345, is_function_calling_model=False).metadata
        assert (metadata.context_window, metadata.is_function_calling_model) == (12_345, False)
        assert self.make().metadata.is_function_calling_model

    # Event loops, threads

    def test_it_works_again_and_again_and_over_two_event_loops(self):
        # HuggingFaceInferenceAPI: a stream closes the async client for good.
        llm = self.make()
        for _ in range(2):
            for endpoint in CHATS:
                assert text_of(asyncio.run(ask(llm, endpoint, self.prompt))[-1]).strip()

    async def test_the_blocking_forms_work_in_a_running_loop(self):
        # llama_index#22744: asyncio.run() cannot be called from a running event loop, in notebooks and in FastAPI.
        llm = self.make()
        assert asyncio.get_running_loop().is_running()
        assert llm.complete(self.prompt).text.strip()
        assert text_of(list(llm.stream_chat([ChatMessage(content=self.prompt)]))[-1]).strip()

    async def test_the_async_forms_never_block_the_event_loop(self):
        # HuggingFaceLLM's call the blocking ones.
        llm = self.make()
        with blockbuster_ctx():
            for endpoint in ("achat", "astream_chat", "acomplete", "astream_complete"):
                await ask(llm, endpoint, self.prompt)
            await llm.achat_with_tools([WEATHER], user_msg=self.tool_prompt)

    async def test_many_ask_at_once(self):
        llm = self.make()
        answers = await asyncio.gather(*(ask(llm, "astream_chat", f"{self.prompt} {n}") for n in range(10)))
        assert all(text_of(each[-1]).strip() for each in answers)

    def test_threads_share_it(self):
        llm = self.make()
        with ThreadPoolExecutor(8) as pool:
            texts = pool.map(lambda n: llm.complete(f"{self.prompt} {n}").text, range(16))
            assert all(text.strip() for text in texts)

    async def test_a_stream_that_is_left_leaves_the_next_call_alone(self):
        llm = self.make()
        for response in llm.stream_chat([ChatMessage(content=self.prompt)]):
            assert response
            break
        async for response in await llm.astream_chat([ChatMessage(content=self.prompt)]):
            assert response
            break
        assert text_of((await ask(llm, "achat", self.prompt))[-1]).strip()
