"""HFGatewayLLM: the conformance suite for LlamaIndex LLMs, through every kind of target, and what is ours alone.

A comment names the fault elsewhere that a test stands against; what messages become is in `test_chat_llamaindex_messages.py`.
"""

import asyncio
import dataclasses
import gc
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.backends import chat as chat_backend
from hf_gateway.hub import router_catalogue
from tests.servers.chat import Said, script
from tests.servers.loopback import Loopback, Stream, cut_stream, error_in_stream, garble_stream, stall_stream
from tests.servers.ollama import FakeOllama, openai_form
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter
from tests.support.late import COLLECTED
from tests.support.llamaindex_llm_calls import (
    CHATS,
    COMPLETIONS,
    ENDPOINT,
    KEY,
    ask,
    text_of,
    told,
)
from tests.support.llamaindex_llm_conformance import LLMConformance
from tests.support.ways import until

if COLLECTED:
    from llama_index.core.base.llms.types import ChatMessage, ThinkingBlock
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
    from llama_index.core.instrumentation.events.exception import ExceptionEvent
    from llama_index.core.llms.function_calling import FunctionCallingLLM

    from llamaindex_hf_gateway import HFGatewayLLM
    from tests.support.llamaindex_llm_calls import MULTIPLY, WEATHER, Callbacks


MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
KINDS = ("openai", "hf", "ollama", "endpoint", "chain")


class TestEveryKind(LLMConformance):
    thinking_params = {"reasoning_effort": "low"}
    supports_thinking = True
    structured_ways = (
        {"structured_output": "function_calling"},
        {"structured_output": "json_schema"},
    )

    @pytest.fixture(autouse=True, params=KINDS)
    def _server(self, request, monkeypatch) -> Iterator[None]:
        kind = request.param
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        with started(kind) as self._server, FakeOpenAI(models=None, api_key="nobody knows") as locked:
            url = self._server.url
            self._targets: list[Any] = {
                "openai": [f"openai:{url}"],
                "hf": [{"kind": "hf", "url": url, "credential": "env:HF_TOKEN"}],
                "ollama": [{"kind": "ollama", "url": url}],
                "endpoint": [{"kind": "endpoint", "url": url, "options": {"access": "public"}}],
                "chain": [f"openai:{locked.url}", f"openai:{url}"],
            }[kind]
            yield

    @property
    def llm_class(self) -> "type[FunctionCallingLLM]":
        return HFGatewayLLM

    @property
    def llm_params(self) -> dict[str, Any]:
        return {"model": MODEL, "targets": self._targets}

    @property
    def keyed_params(self) -> dict[str, Any]:
        targets = [Target.of(target) for target in self._targets]
        return {"targets": [dataclasses.replace(target, credential=KEY) for target in targets]}

    def sent(self) -> list[dict[str, Any]]:
        bodies = [request.json for request in self._server.requests if request.method == "POST"]
        return [openai_form(body) for body in bodies] if isinstance(self._server, FakeOllama) else bodies


def started(kind: str) -> Loopback:
    if kind == "hf":
        return FakeRouter()
    if kind == "ollama":
        able = ["completion", "tools", "thinking", "vision"]
        return FakeOllama({f"hf.co/{MODEL}": {"capabilities": able, "context_length": 8192}})
    return FakeOpenAI(models=None)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as running:
        yield running


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama({"m": {"capabilities": ["completion", "tools", "thinking"], "context_length": 8192}}) as running:
        yield running


def through(*servers: Loopback, **fields: Any) -> "HFGatewayLLM":
    targets = [Target("ollama" if isinstance(each, FakeOllama) else "openai", url=each.url) for each in servers]
    return HFGatewayLLM(**{"model": "m", "targets": targets, "max_retries": 0, **fields})


def chunks(*deltas: dict[str, Any]) -> Stream:
    """Return a stream of chunks, each with its delta and whatever else stands beside it."""
    sent = [
        {"choices": [{"index": 0, "finish_reason": None, **delta}]} if "choices" not in delta else delta
        for delta in deltas
    ]
    lines = [f"data: {json.dumps(each)}\n\n".encode() for each in sent]
    return Stream(200, {"content-type": "text/event-stream"}, [*lines, b"data: [DONE]\n\n"])


def body(server: Loopback) -> dict[str, Any]:
    return server.requests[-1].json


STREAMS = ("stream_chat", "stream_complete")
ASTREAMS = ("astream_chat", "astream_complete")


class TestRequests:
    @ENDPOINT
    async def test_a_temperature_of_zero_is_zero(self, endpoint, server):
        # HuggingFaceInferenceAPI refuses it.
        await ask(through(server, temperature=0), endpoint, "foo")
        assert body(server)["temperature"] == 0

    async def test_what_is_said_for_one_call_goes_over_the_instance(self, ollama):
        # Ollama: think=False for a call is ignored where the instance says True.
        llm = through(ollama, reasoning_effort="low", temperature=1.0)
        for endpoint in CHATS:
            await ask(llm, endpoint, "foo", reasoning_effort=False, temperature=0)
            assert (body(ollama)["think"], body(ollama)["options"]) == (False, {"temperature": 0})

    def test_what_is_assigned_holds_from_then_on_and_the_chain_stays_as_it_is(self, server):
        llm = through(server)
        llm.temperature, llm.max_tokens = 0.7, 2
        assert llm.complete("foo").text == "I heard:"
        assert body(server)["temperature"] == 0.7
        with pytest.raises(ValueError, match="frozen"):
            llm.targets = ["ollama"]

    @ENDPOINT
    async def test_an_unknown_argument_of_a_call_is_an_error_that_names_the_nearest(self, endpoint, server):
        with pytest.raises(errors.InvalidRequest, match="no argument 'temprature'; did you mean 'temperature'"):
            await ask(through(server), endpoint, "foo", temprature=1)
        assert server.count() == 0

    def test_an_unknown_argument_of_the_class_is_one_too(self):
        with pytest.raises(
            errors.ConfigError, match="HFGatewayLLM has no argument 'system_promt'; did you mean 'system_p"
        ):
            HFGatewayLLM(model="m", system_promt="Be brief.")

    def test_every_argument_of_a_model_and_of_llamaindex_is_taken(self, server):
        llm = through(
            server,
            system_prompt="Be brief.",
            messages_to_prompt=lambda _: "",
            output_parser=None,
            pydantic_program_mode="default",
            rate_limiter=None,
            callback_manager=None,
            temperature=0.1,
            top_p=0.9,
            max_tokens=7,
            stop=["!"],
            seed=3,
            extra_body={"guided_regex": "a+"},
            timeout=9,
            streaming=False,
        )
        llm.complete("foo")
        sent = {name: value for name, value in body(server).items() if name not in ("messages", "model")}
        assert sent == {
            "temperature": 0.1,
            "top_p": 0.9,
            "max_tokens": 7,
            "stop": ["!"],
            "seed": 3,
            "guided_regex": "a+",
        }

    def test_model_name_is_another_word_for_model(self):
        assert HFGatewayLLM(model_name="org/model", targets=["hf"]).model == "org/model"

    def test_another_model_may_be_asked_for_one_call(self, server):
        assert through(server).complete("foo", model="other").raw["model"] == "other"

    def test_nothing_is_printed_and_nothing_sent_by_the_constructor(self, server, capfd):
        # HuggingFaceInferenceAPI prints that its model calls no functions, and makes it so.
        assert through(server).metadata.is_function_calling_model
        assert capfd.readouterr() == ("", "")
        assert server.connections == 0

    def test_one_connection_serves_call_after_call(self, server, monkeypatch):
        # A loaded machine may need longer than the tenth of a second after which a body without an end is given up.
        monkeypatch.setattr(chat_backend, "BODY_END_TIMEOUT_S", 30.0)
        llm = through(server)
        for _ in range(3):
            llm.complete("foo")
            list(llm.stream_complete("foo"))
        assert server.connections == 1


class TestStreams:
    @pytest.mark.parametrize("endpoint", ["stream_chat", "astream_chat"])
    async def test_a_chunk_of_usage_alone_is_no_piece_and_no_error(self, endpoint, server):
        # HuggingFaceInferenceAPI: IndexError.
        usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}
        end = {"delta": {}, "finish_reason": "stop"}
        server.fail(chunks({"delta": {"role": "assistant", "content": ""}}, {"delta": {"content": "Hi"}}, end, usage))
        responses = await ask(through(server), endpoint, "foo")
        assert [each.delta for each in responses] == ["Hi", ""]
        assert responses[-1].raw["usage"] == usage["usage"]

    @pytest.mark.parametrize("endpoint", ["stream_chat", "astream_chat", "stream_complete", "astream_complete"])
    async def test_text_beside_the_finish_reason_is_not_lost(self, endpoint, server):
        # HuggingFaceInferenceAPI: "Hello" of "Hello!".
        server.fail(chunks({"delta": {"content": "Hello"}}, {"delta": {"content": "!"}, "finish_reason": "stop"}))
        assert text_of((await ask(through(server), endpoint, "foo"))[-1]) == "Hello!"

    @pytest.mark.parametrize("endpoint", ["stream_chat", "astream_chat", "stream_complete", "astream_complete"])
    @pytest.mark.parametrize(
        "fault", [cut_stream(4), error_in_stream(4), garble_stream(4)], ids=["cut", "error", "garbled"]
    )
    async def test_an_answer_that_breaks_off_is_no_short_answer(self, endpoint, fault, server, backup):
        # HuggingFaceLLM waits for ever for a generation that has failed.
        server.fail(fault)
        llm, seen = through(server, backup), []
        with told(ExceptionEvent) as events, pytest.raises(errors.StreamInterrupted) as failure:
            await collect(llm, endpoint, seen)
        assert failure.value.partial == text_of(seen[-1]) == "I heard: Tell"
        assert events[-1].exception is failure.value
        assert backup.count() == 0

    @pytest.mark.parametrize("leave", ["close", "drop"])
    @pytest.mark.parametrize("endpoint", STREAMS)
    def test_leaving_a_stream_closes_its_connection(self, endpoint, leave, server):
        # LlamaIndex's callbacks leave that to the garbage, which a handler that keeps the event holds up.
        kept = Callbacks()
        server.fail(stall_stream(3))
        llm = through(server, callback_manager=CallbackManager([kept]))
        responses = getattr(llm, endpoint)(given(endpoint, "Tell me a story"))
        assert next(responses).delta == "I"
        if leave == "close":
            responses.close()
        del responses
        server.wait_gone()
        assert [type(*payload.values()) for payload in kept.ended.values()] == [GeneratorExit]

    @pytest.mark.parametrize("leave", ["close", "drop", "cancel"])
    @pytest.mark.parametrize("endpoint", ASTREAMS)
    async def test_leaving_an_async_stream_closes_its_connection(self, endpoint, leave, server):
        kept = Callbacks()
        stall = stall_stream(3)
        server.fail(stall)
        llm = through(server, callback_manager=CallbackManager([kept]))
        responses = await getattr(llm, endpoint)(given(endpoint, "Tell me a story"))
        assert (await anext(responses)).delta == "I"
        if leave == "cancel":
            await anext(responses)
            waiting = asyncio.ensure_future(anext(responses))
            await asyncio.to_thread(stall.reached.wait, 10)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        elif leave == "close":
            await responses.aclose()
        del responses
        gc.collect()
        await asyncio.to_thread(server.wait_gone)
        await asyncio.to_thread(until, lambda: kept.ended)  # the loop may not have come to it yet
        assert len(kept.ended) == 1

    @pytest.mark.parametrize("endpoint", ["achat", "acomplete"])
    async def test_a_cancelled_call_closes_its_connection(self, endpoint, server):
        stall = stall_stream(3)
        server.fail(stall)
        waiting = asyncio.ensure_future(ask(through(server, streaming=True), endpoint, "Tell me a story"))
        await asyncio.to_thread(stall.reached.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(server.wait_gone)

    async def test_a_stream_asks_nobody_before_it_is_read(self, server):
        llm = through(server)
        llm.stream_complete("foo").close()
        await (await llm.astream_complete("foo")).aclose()
        assert server.connections == 0


class TestChain:
    @ENDPOINT
    async def test_the_next_target_answers_and_the_response_says_so(self, endpoint, server, backup, caplog):
        server.close()
        last = (await ask(through(server, backup), endpoint, "foo"))[-1]
        assert text_of(last) == "I heard: foo"
        told = last.raw["hf_gateway"]
        assert told["served_by"] == f"openai:{backup.url}"
        assert [(each["target"], each["outcome"]) for each in told["attempts"]] == [
            (f"openai:{server.url}", "failed"),
            (f"openai:{backup.url}", "served"),
        ]
        assert told["attempts"][0]["error"].startswith("ConnectFailed: ")
        assert told["first_content_seconds"] > 0
        assert "the answer was given by" in caplog.text

    @pytest.mark.parametrize("endpoint", CHATS)
    async def test_before_the_first_content_the_next_target_starts_afresh(self, endpoint, server, backup):
        server.fail(cut_stream(1))
        responses = await ask(through(server, backup), endpoint, "foo")
        assert text_of(responses[-1]) == "I heard: foo"

    @ENDPOINT
    async def test_what_is_the_callers_fault_is_raised_at_once(self, endpoint, server, backup):
        with pytest.raises(errors.InvalidRequest, match="decimal above maximum"):
            await ask(through(server, backup), endpoint, "foo", temperature=3)
        assert backup.count() == 0

    def test_a_conversation_goes_on_elsewhere_with_its_tool_calls(self, server, ollama):
        llm = through(server, ollama)
        asked = ChatMessage(content="Call get_weather for 'Paris' and 'Rome'")
        first = llm.chat_with_tools([WEATHER], user_msg=asked, allow_parallel_tool_calls=True)
        server.close()
        results = [
            ChatMessage(role="tool", content=f"violet {n}", additional_kwargs={"tool_call_id": each.tool_id})
            for n, each in enumerate(llm.get_tool_calls_from_response(first))
        ]
        last = llm.chat_with_tools([WEATHER], chat_history=[asked, first.message, *results])
        assert last.message.content == "The tool says: violet 0; violet 1"
        assert last.raw["hf_gateway"]["served_by"] == "ollama:" + ollama.url
        # Ollama's own class sends no tool_name, by which its templates know what a result is of.
        assert [message.get("tool_name") for message in body(ollama)["messages"]] == [
            None,
            None,
            "get_weather",
            "get_weather",
        ]


class TestResponses:
    @ENDPOINT
    async def test_raw_has_all_that_is_known(self, endpoint):
        said = Said("Yes.", "Hm, hm.", prompt_tokens=9, completion_tokens=5, cached_tokens=4, reasoning_tokens=3)
        with FakeOpenAI(models=None, brain=script(said), served_model="m-2026") as server:
            last = (await ask(through(server), endpoint, "foo"))[-1]
        assert last.raw["usage"] == {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
        counts = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        assert {name: last.additional_kwargs[name] for name in counts} == counts
        assert (last.raw["model"], last.raw["finish_reason"], last.raw["provider"]) == ("m-2026", "stop", None)
        if endpoint in CHATS:
            assert last.message.blocks[0] == ThinkingBlock(content="Hm, hm.", num_tokens=3)

    def test_the_provider_is_named(self, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        with FakeRouter() as router:
            target = Target("hf", url=router.url, credential="env:HF_TOKEN")
            assert HFGatewayLLM(model=MODEL, targets=[target]).complete("foo").raw["provider"] == "hyperbolic"

    @pytest.mark.parametrize("endpoint", ["stream_chat", "astream_complete"])
    async def test_unknown_counts_are_left_out_and_never_nought(self, endpoint):
        counter = TokenCountingHandler(tokenizer=lambda text: text.split())
        with FakeOpenAI(models=None, usage_in_stream=False) as server:
            llm = through(server, callback_manager=CallbackManager([counter]))
            last = (await ask(llm, endpoint, "foo bar"))[-1]
        assert last.raw["usage"] == {}
        assert "total_tokens" not in last.additional_kwargs
        assert counter.prompt_llm_token_count > 0 < counter.completion_llm_token_count

    @pytest.mark.parametrize("endpoint", CHATS)
    async def test_logprobs_are_given_where_they_are_asked_for(self, endpoint, server):
        llm = through(server)
        last = (await ask(llm, endpoint, "foo", logprobs=True, top_logprobs=2))[-1]
        assert [[each.token for each in place] for place in last.logprobs] == [
            ["I", "I?"],
            [" heard:", " heard:?"],
            [" foo", " foo?"],
        ]
        assert last.logprobs[0][0].logprob == -0.25
        assert (await ask(llm, endpoint, "foo"))[-1].logprobs is None

    @pytest.mark.parametrize("endpoint", CHATS)
    async def test_arguments_that_are_no_json_stay_what_they_are(self, endpoint):
        # HuggingFaceInferenceAPI: {} in silence, for arguments that came as text, too.
        calls = (("multiply", '{"a": 6, "b": 7'), ("multiply", "six times seven"))
        with FakeOpenAI(models=None, brain=script(Said(tool_calls=calls), "42")) as server:
            llm = through(server)
            last = (await ask(llm, endpoint, "foo", tools=[MULTIPLY.metadata.to_openai_tool()]))[-1]
            assert [block.tool_kwargs for block in last.message.blocks] == ['{"a": 6, "b": 7', "six times seven"]
            chosen = llm.get_tool_calls_from_response(last)
            assert [each.tool_kwargs for each in chosen] == [{"a": 6, "b": 7}, {}]
            # What goes back is what the tools were called with; servers refuse a conversation for a missing brace.
            llm.chat([ChatMessage(content="foo"), last.message, *results_of(chosen)])
            sent = [each["function"]["arguments"] for each in body(server)["messages"][1]["tool_calls"]]
        assert sent == ['{"a": 6, "b": 7}', "{}"]


class TestWritten:
    def test_times_and_retries_are_written_too(self):
        fields = {"timeout": 7.0, "stall_timeout": 6.0, "max_retries": 4, "patience": 0.0, "streaming": False}
        llm = HFGatewayLLM(model="m", targets=["hf"], num_output=9, structured_output="json_schema", **fields)
        rebuilt = HFGatewayLLM.from_dict(json.loads(llm.to_json()))
        assert {name: getattr(rebuilt, name) for name in fields} == fields
        assert (rebuilt.num_output, rebuilt.structured_output) == (9, "json_schema")

    @pytest.mark.parametrize("shown", ["to_dict", "to_json", "to_payload", "__repr__", "__getstate__", "pickle"])
    def test_a_key_given_to_the_class_is_never_shown(self, shown):
        llm = HFGatewayLLM(model="m", targets=["hf"], api_key=KEY)
        assert llm.status()[0].key_source == "the argument api_key"
        assert KEY not in str(pickle.dumps(llm) if shown == "pickle" else getattr(llm, shown)())

    @pytest.mark.parametrize("endpoint", [*CHATS, *COMPLETIONS])
    async def test_a_key_is_in_no_event_and_no_error(self, endpoint):
        with FakeOpenAI(models=None, api_key="another") as server:
            llm = HFGatewayLLM(model="m", targets=[Target("openai", url=server.url, credential=KEY)], max_retries=0)
            kept = Callbacks()
            llm.callback_manager = CallbackManager([kept])
            with told(object) as events, pytest.raises(errors.AuthenticationFailed) as failure:
                await ask(llm, endpoint, "foo")
        assert events
        assert KEY not in f"{[each.model_dump() for each in events]} {kept.started} {kept.ended} {failure.value!r}"

    def test_what_the_environment_decided_is_written_down(self, monkeypatch):
        monkeypatch.setenv("HF_GATEWAY_CHAT_MODEL", "org/model")
        monkeypatch.setenv("HF_GATEWAY_CHAT_TARGETS", "hf:cerebras,ollama")
        llm = HFGatewayLLM()
        assert (llm.model, llm.to_payload()["targets"]) == ("org/model", ["hf:cerebras", "ollama:org/model"])
        monkeypatch.setenv("HF_GATEWAY_CHAT_TARGETS", "hf")
        for rebuilt in (pickle.loads(pickle.dumps(llm)), HFGatewayLLM.from_dict(llm.to_dict())):
            assert rebuilt.to_dict() == llm.to_dict()

    def test_what_cannot_be_rebuilt_says_why(self, monkeypatch):
        data = pickle.dumps(HFGatewayLLM(model="m", targets=["ollama"]))
        monkeypatch.setenv("HF_GATEWAY_CONFIG", "is-not-here.toml")
        with pytest.raises(errors.ConfigError, match="no such file"):
            pickle.loads(data)

    def test_from_config_and_from_gateway_build_the_same(self, server):
        text = f'[chains.talk]\nmodel = "m"\ntemperature = 0.5\ntargets = ["openai:{server.url}"]\n'
        Path("hf-gateway.toml").write_text(text)
        gateway = Gateway.from_config("talk", task="chat", max_tokens=8)
        read = HFGatewayLLM.from_config("talk", max_tokens=8, context_window=99)
        given = HFGatewayLLM.from_gateway(gateway, context_window=99)
        assert given.gateway is gateway
        assert given.to_dict() == read.to_dict()
        assert given.complete("foo").text == read.complete("foo").text

    def test_a_gateway_for_embeddings_is_refused(self):
        with pytest.raises(errors.ConfigError, match="built for embedding;"):
            HFGatewayLLM.from_gateway(Gateway(targets=["hash"]))


class TestMetadata:
    def test_its_context_is_what_the_user_says_or_what_is_known_here(self, monkeypatch, tmp_path):
        # HuggingFaceInferenceAPI knows of one provider alone, and swallows the failure; Ollama asks its server.
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path))
        with FakeRouter() as router:
            target = Target("hf", url=router.url, credential="hf_test")
            assert HFGatewayLLM(model=MODEL, targets=[target]).metadata.context_window == 3900
            router_catalogue.catalogue_of(router.url).find_entry(MODEL)
            asked = router.count()
            assert HFGatewayLLM(model=MODEL, targets=[target]).metadata.context_window == 32768
            assert HFGatewayLLM(model=MODEL, targets=[target], context_window=7).metadata.context_window == 7
            assert router.count() == asked
        known = HFGatewayLLM(targets=[Target("ollama", model="m", options={"num_ctx": 8192})])
        assert known.metadata.context_window == 8192

    def test_its_name_is_the_models_wherever_that_is_said(self):
        assert HFGatewayLLM(model="org/model", targets=["hf"]).metadata.model_name == "org/model"
        assert HFGatewayLLM(targets=["ollama:llama3.1"]).metadata.model_name == "llama3.1"
        assert HFGatewayLLM(targets=["openai:http://127.0.0.1:1"]).metadata.model_name == "unknown"

    def test_what_is_kept_free_for_an_answer_follows_max_tokens(self):
        assert HFGatewayLLM(model="m", max_tokens=99).metadata.num_output == 99
        assert HFGatewayLLM(model="m", max_tokens=99, num_output=5).metadata.num_output == 5


async def collect(llm: "HFGatewayLLM", endpoint: str, seen: list[Any]) -> None:
    """Read a stream into `seen`, as far as it goes."""
    if endpoint in STREAMS:
        seen.extend(getattr(llm, endpoint)(given(endpoint, "Tell me a story")))
        return
    responses = await getattr(llm, endpoint)(given(endpoint, "Tell me a story"))
    while (response := await anext(responses, None)) is not None:
        seen.append(response)


def given(endpoint: str, text: str) -> Any:
    return text if endpoint in COMPLETIONS else [ChatMessage(content=text)]


def results_of(chosen: list[Any]) -> "list[ChatMessage]":
    return [ChatMessage(role="tool", content="42", additional_kwargs={"tool_call_id": each.tool_id}) for each in chosen]
