"""ChatHFGateway beyond LangChain's standard tests; a comment names the fault elsewhere that a test stands against."""

import asyncio
import pickle
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from pydantic import ValidationError

from hf_gateway import Gateway, Target, errors
from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.testing import ManualClock
from tests.servers.chat import script
from tests.servers.loopback import Fault, Reply, cut_stream, dead_url, end_stream, hang, html, stall_stream
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import LLAMA, FakeHub, FakeRouter
from tests.support.askers import FORMS, MODEL, Form, ask, sent, through
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core import exceptions as langchain
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.load import dumps
    from langchain_core.messages import HumanMessage
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tracers import BaseTracer

    from langchain_hf_gateway import ChatHFGateway


KEY = "hf_dontShowThisToAnybody"
STORY = "Once upon a time there was a gate"
OTHER = "Another story altogether"
STREAMED: tuple[Form, ...] = ("stream", "astream")
WHOLE: tuple[Form, ...] = ("invoke", "ainvoke")


@pytest.fixture
def teller():
    with FakeOpenAI(models=None, brain=script(STORY)) as server:
        yield server


@pytest.fixture
def other():
    with FakeOpenAI(models=None, brain=script(OTHER)) as server:
        yield server


if COLLECTED:

    class Tokens(BaseCallbackHandler):
        """Takes tokens as they come."""

        def __init__(self) -> None:
            self.taken: list[str] = []

        def on_llm_new_token(self, token: str, **_: Any) -> None:
            self.taken.append(token)


class TestArguments:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_field_of_sampling_is_sent_and_0_is_0(self, primary, form: Form):
        # ChatHuggingFace: temperature=0 becomes 0.8; top_p, seed, the penalties and logprobs are never sent; repetition_penalty
        # lands in frequency_penalty; max_tokens in model_kwargs, with a warning.
        own = {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 3,
            "max_tokens": 50,
            "seed": 0,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.25,
            "repetition_penalty": 1.5,
            "logprobs": True,
            "top_logprobs": 0,
            "stop": ["never"],
        }
        ask(through(primary, **own, extra_body={"min_p": 0.1}), form)
        body = sent(primary)
        assert {name: body[name] for name in own} == own
        assert body["min_p"] == 0.1

    @pytest.mark.parametrize("form", FORMS)
    def test_a_calls_own_argument_goes_over_the_instances(self, primary, form: Form):
        ask(through(primary, temperature=0.1, stop=["one"], seed=1), form, temperature=0.9, stop=["two"])
        body = sent(primary)
        assert (body["temperature"], body["stop"], body["seed"]) == (0.9, ["two"], 1)

    def test_what_is_set_later_holds_from_then_on_and_is_checked_with_the_next_call(self, primary):
        model = through(primary, temperature=0.1)
        model.temperature = 0
        model.max_tokens = 7
        ask(model)
        assert (sent(primary)["temperature"], sent(primary)["max_tokens"]) == (0, 7)
        model.temperature = -1
        with pytest.raises(langchain.ModelInvalidRequestError, match=r"temperature: .* greater than or equal to 0"):
            ask(model)

    @pytest.mark.parametrize("form", FORMS)
    def test_an_unknown_argument_of_a_call_is_an_error_that_names_the_nearest(self, primary, form: Form):
        with pytest.raises(langchain.ModelInvalidRequestError, match="'temperatur'; did you mean 'temperature'"):
            ask(through(primary), form, temperatur=0)
        assert primary.count() == 0

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [("time_out", "timeout"), ("modell", "model"), ("temprature", "temperature"), ("callback", "callbacks")],
    )
    def test_an_unknown_argument_is_an_error_that_names_the_nearest(self, wrong, right):
        # ChatHuggingFace ignores timeout, max_retries and api_key without a word.
        with pytest.raises(ConfigError, match=f"no argument '{wrong}'; did you mean '{right}'"):
            ChatHFGateway(model=MODEL, **{wrong: "x"})

    def test_what_was_given_for_a_wrong_field_is_not_shown(self):
        with pytest.raises(ValidationError, match="temperature") as caught:
            ChatHFGateway(model=MODEL, temperature=KEY)  # type: ignore[arg-type]
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("targets", [["hf"], ["nowhere"], [], ["openai"]])
    def test_a_chain_that_makes_no_sense_is_refused_by_the_constructor(self, targets):
        with pytest.raises(ConfigError):
            ChatHFGateway(targets=targets)

    def test_what_every_chat_model_of_langchain_takes_it_takes_too(self, primary):
        given: dict[str, Any] = {
            "name": "mine",
            "cache": False,
            "verbose": True,
            "callbacks": [Tokens()],
            "tags": ["a"],
            "disable_streaming": "tool_calling",
            "output_version": "v1",
            "profile": {"max_input_tokens": 7},
        }
        model = through(primary, metadata={"b": 1}, **given)
        assert {name: getattr(model, name) for name in given} == given
        assert model.metadata is not None
        assert model.metadata["b"] == 1
        assert {"langchain-core", "hf-gateway"} <= set(model.metadata["lc_versions"])

    @pytest.mark.parametrize("field", ["model", "targets", "api_key", "timeout", "max_retries", "streaming"])
    def test_fields_of_the_chain_cannot_be_set_afterwards(self, field):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(ChatHFGateway(model=MODEL), field, None)

    def test_the_constructor_sends_nothing(self, primary):
        with FakeRouter() as router, FakeHub() as hub:
            keyed = Target("hf", url=router.url, credential="hf_test")
            for target in (keyed, f"openai:{primary.url}", f"endpoint:{primary.url}"):
                ChatHFGateway(model=LLAMA, targets=[target])
            assert (router.count(), hub.count(), primary.count()) == (0, 0, 0)

    def test_what_the_environment_decided_is_shown(self, monkeypatch):
        monkeypatch.setenv("HF_GATEWAY_CHAT_MODEL", LLAMA)
        monkeypatch.setenv("HF_GATEWAY_CHAT_TARGETS", "hf:nebius,ollama:llama3.1")
        model = ChatHFGateway()
        assert (model.model, [target.label for target in model.targets or ()]) == (
            LLAMA,
            ["hf:nebius", "ollama:llama3.1"],
        )

    def test_from_config_reads_the_chain_and_takes_changes_and_langchains_own(self, primary):
        Path("hf-gateway.toml").write_text(
            f'[chains.talk]\ntask = "chat"\nmodel = "{MODEL}"\ntargets = ["openai:{primary.url}"]\ntemperature = 0.5\n'
        )
        model = ChatHFGateway.from_config("talk", temperature=0, tags=["a"])
        ask(model)
        assert (sent(primary)["temperature"], model.tags) == (0, ["a"])
        Path("hf-gateway.toml").write_text('[chains.talk]\ntags = ["a"]\n')
        with pytest.raises(ConfigError, match="toml:2: unknown setting 'tags'"):
            ChatHFGateway.from_config("talk")

    def test_from_gateway_shares_the_gateway_and_refuses_one_for_embeddings(self, primary):
        gateway = Gateway(MODEL, [f"openai:{primary.url}"], task="chat", temperature=0)
        model = ChatHFGateway.from_gateway(gateway)
        assert model.gateway is gateway
        ask(model)
        assert sent(primary)["temperature"] == 0
        with pytest.raises(ConfigError, match="task='chat'"):
            ChatHFGateway.from_gateway(Gateway(targets=["hash"]))


class TestChain:
    @pytest.mark.parametrize("form", FORMS)
    def test_the_next_target_answers_and_the_answer_says_why(self, teller, other, form: Form):
        teller.always(Reply(503, "busy"))
        answer = ask(through(teller, other), form)
        assert answer.text == OTHER
        told = answer.response_metadata["hf_gateway"]
        assert told["served_by"] == f"openai:{other.url}"
        assert [attempt["outcome"] for attempt in told["attempts"]] == ["failed", "served"]
        assert "Overloaded" in told["attempts"][0]["error"]

    @pytest.mark.parametrize("form", STREAMED)
    def test_an_answer_that_breaks_off_is_a_connection_error_with_the_text_so_far(self, teller, other, form: Form):
        teller.always(cut_stream(4))
        with pytest.raises(langchain.ModelConnectionError) as caught:
            ask(through(teller, other), form)
        assert isinstance(caught.value, errors.StreamInterrupted)
        assert (caught.value.partial, caught.value.is_retryable, other.count()) == ("Once upon a", True, 0)

    @pytest.mark.parametrize("form", WHOLE)
    @pytest.mark.parametrize("streaming", [None, True])
    def test_an_answer_that_is_wanted_whole_starts_afresh_at_the_next_target(
        self, teller, other, form: Form, streaming
    ):
        # LangChain sends invoke through _stream when streaming=True; what has come is then kept, and nobody can take over.
        teller.always(end_stream(4))
        answer = ask(through(teller, other, streaming=streaming), form)
        assert (answer.text, answer.response_metadata["finish_reason"]) == (OTHER, "stop")
        assert sent(teller)["stream"] is True

    @pytest.mark.parametrize("form", WHOLE)
    def test_a_broken_answer_of_the_only_target_is_an_api_error(self, teller, form: Form):
        teller.always(end_stream(4))
        with pytest.raises(langchain.ModelAPIError) as caught:
            ask(through(teller, streaming=True), form)
        assert isinstance(caught.value, errors.StreamBroken)

    @pytest.mark.parametrize("form", WHOLE)
    def test_whoever_listens_to_tokens_gets_them_with_streaming(self, teller, form: Form):
        listener = Tokens()
        answer = ask(through(teller, streaming=True), form, config={"callbacks": [listener]})
        assert (answer.text, "".join(listener.taken)) == (STORY, STORY)
        assert answer.usage_metadata
        assert answer.response_metadata["hf_gateway"]["served_by"] == f"openai:{teller.url}"

    @pytest.mark.parametrize("streaming", [None, True])
    async def test_event_streams_hand_on_tokens_of_an_invoke_within(self, teller, streaming):
        model = through(teller, streaming=streaming)
        events = RunnableLambda(model.ainvoke).astream_events("hi", version="v2")
        pieces = [each["data"]["chunk"].text async for each in events if each["event"] == "on_chat_model_stream"]
        assert ("".join(pieces), len(pieces) > 2) == (STORY, True)

    @pytest.mark.filterwarnings("ignore:.*astream_log")
    @pytest.mark.parametrize("streaming", [None, True])
    async def test_so_do_logs_of_a_run(self, teller, streaming):
        model = through(teller, streaming=streaming)
        patches = [patch async for patch in RunnableLambda(model.ainvoke).astream_log("hi")]
        steps = [step for patch in patches for step in patch.ops if step["path"].endswith("/streamed_output_str/-")]
        assert ("".join(step["value"] for step in steps), len(steps) > 2) == (STORY, True)

    @pytest.mark.parametrize("form", FORMS)
    def test_streaming_can_be_asked_for_by_a_call(self, teller, form: Form):
        assert ask(through(teller), form, stream=True).text == STORY
        assert sent(teller)["stream"] is True

    def test_a_tracer_that_only_watches_changes_nothing(self, teller, other):
        class Watching(BaseTracer):
            def _persist_run(self, run: Any) -> None: ...

        teller.always(cut_stream(4))
        answer = ask(through(teller, other, streaming=True), config={"callbacks": [Watching()]})
        assert answer.text == OTHER

    @pytest.mark.parametrize(
        "switch", [{"streaming": False}, {"disable_streaming": True}, {"streaming": True, "disable_streaming": True}]
    )
    def test_where_streaming_is_switched_off_a_stream_is_one_piece(self, teller, other, switch):
        assert [piece.content for piece in through(teller, **switch).stream("hi")] == [STORY]
        assert ("stream" in sent(teller)) is (switch.get("streaming") is True)

    @pytest.mark.parametrize(
        "switch", [{"streaming": False}, {"disable_streaming": True}, {"disable_streaming": "tool_calling"}]
    )
    @pytest.mark.parametrize("form", WHOLE)
    def test_where_another_target_stands_by_an_answer_is_streamed_underneath_whatever_is_switched_off(
        self, teller, other, switch, form: Form
    ):
        teller.always(end_stream(4))
        answer = ask(through(teller, other, **switch), form)
        assert answer.text == OTHER
        assert sent(teller)["stream"] is True

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("retries", [0, 2])
    def test_one_layer_alone_retries(self, teller, form: Form, retries):
        teller.always(Reply(500, "oops"))
        clock = ManualClock()
        gateway = Gateway(MODEL, [f"openai:{teller.url}"], task="chat", max_retries=retries, clock=clock)
        with pytest.raises(langchain.ModelAPIError):
            ask(ChatHFGateway.from_gateway(gateway), form)
        assert (teller.count(), len(clock.waited)) == (retries + 1, retries)

    def test_leaving_a_stream_closes_its_connection(self, teller):
        stall = stall_stream(2)
        teller.always(stall)
        pieces = through(teller).stream("hi")
        assert next(pieces).content
        pieces.close()  # type: ignore[attr-defined]
        assert stall.disconnected.wait(10)

    async def test_leaving_an_async_stream_closes_its_connection(self, teller):
        stall = stall_stream(2)
        teller.always(stall)
        async for piece in through(teller).astream("hi"):
            assert piece.content
            break
        assert await asyncio.to_thread(stall.disconnected.wait, 10)

    @pytest.mark.parametrize("form", ["ainvoke", "astream"])
    async def test_cancelling_a_call_closes_its_connection_and_counts_against_nobody(self, teller, form):
        stall = stall_stream(2)
        teller.always(stall)
        model = through(teller, streaming=True)

        async def read() -> None:
            if form == "ainvoke":
                await model.ainvoke("hi")
            async for _ in model.astream("hi"):
                pass

        for _ in range(4):
            stall.reached.clear()
            stall.disconnected.clear()
            task = asyncio.create_task(read())
            await asyncio.to_thread(stall.reached.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(stall.disconnected.wait, 10)
        assert model.status()[0].ready

    @pytest.mark.parametrize("form", FORMS)
    def test_a_silent_server_is_given_up_in_time(self, teller, form: Form):
        teller.always(hang())
        with pytest.raises(langchain.ModelTimeoutError):
            ask(through(teller, timeout=0.2), form)


class TestKeys:
    @pytest.mark.parametrize("kind", ["openai", "endpoint", "ollama"])
    def test_a_server_of_ones_own_needs_no_key_and_gets_none_of_the_environment(self, kind, monkeypatch):
        # Two years of "needs a key for localhost": langchain#24571, #23872, #19685, #30333, #22804.
        for name in ("HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.setenv(name, KEY)
        able = {MODEL: {"capabilities": ["completion"]}}
        with FakeOllama(able) if kind == "ollama" else FakeOpenAI(models=None) as server, FakeHub() as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            ask(ChatHFGateway(model=MODEL, targets=[{"kind": kind, "url": server.url}]))
            assert ["authorization" in request.headers for request in server.requests] == [False]
            assert hub.count() == 0

    def test_a_dedicated_endpoint_gets_the_token(self, monkeypatch):
        # langchain#40447: the token is withheld from *.endpoints.huggingface.cloud.
        monkeypatch.setenv("HF_TOKEN", KEY)
        model = ChatHFGateway(model=MODEL, targets=["endpoint:https://abc.eu-west-1.aws.endpoints.huggingface.cloud"])
        assert [status.key_source for status in model.status()] == ["the environment variable HF_TOKEN"]

    @pytest.mark.parametrize("form", FORMS)
    def test_the_hosted_model_without_a_key_is_refused_before_any_request(self, form: Form):
        with (
            FakeRouter() as router,
            pytest.raises(langchain.ModelAuthenticationError, match="a required key is missing"),
        ):
            ask(ChatHFGateway(model=LLAMA, targets=[Target("hf", url=router.url)]), form)
        assert router.count() == 0

    @pytest.mark.parametrize(
        "shown",
        [
            repr,
            str,
            vars,
            lambda model: model.model_dump(),
            lambda model: model.model_dump_json(),
            lambda model: model.asdict(),
            pickle.dumps,
            lambda model: dumps(model),
            lambda model: (model._get_llm_string(), model._get_ls_params(), model._serialized),
        ],
        ids=["repr", "str", "vars", "model_dump", "model_dump_json", "asdict", "pickle", "dumps", "traces"],
    )
    def test_a_key_is_never_shown(self, shown):
        bound = Target("openai", url="http://127.0.0.1:1", credential=f"sk_{KEY}")
        model = ChatHFGateway(model=LLAMA, targets=["hf", bound], api_key=KEY)
        assert model.api_key is not None
        assert KEY not in str(shown(model))

    @pytest.mark.parametrize("form", FORMS)
    def test_a_key_is_in_no_exception_even_if_the_server_quotes_it(self, teller, form: Form):
        teller.always(Reply(401, {"error": f"key {KEY} is not valid"}))
        model = ChatHFGateway(model=MODEL, targets=[Target("openai", url=teller.url, credential=KEY)])
        with pytest.raises(langchain.ModelAuthenticationError) as caught:
            ask(model, form)
        error: BaseException | None = caught.value
        while error is not None:
            assert KEY not in f"{error} {error!r} {vars(error)}"
            error = error.__cause__ or error.__context__
        assert KEY not in "".join(traceback.format_exception(caught.value))
        assert KEY.encode() not in pickle.dumps(caught.value)


class TestErrors:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("fault", "expected", "retryable"),
        [
            pytest.param(fault, expected, retryable, id=name)
            for name, fault, expected, retryable in [
                ("401", Reply(401), "ModelAuthenticationError", False),
                ("402", Reply(402, {"error": "no credits"}), "ModelPermissionDeniedError", False),
                ("403", Reply(403, {"error": "no"}), "ModelPermissionDeniedError", False),
                ("404", Reply(404), "ModelNotFoundError", False),
                ("400", Reply(400, {"error": "what?"}), "ModelInvalidRequestError", False),
                ("too long", Reply(400, {"error": "maximum context length"}), "ContextOverflowError", False),
                ("429", Reply(429, "slow", {"retry-after": "60"}), "ModelRateLimitError", True),
                ("503", Reply(503, "busy"), "ModelAPIError", True),
                ("a proxy's page", html(200), "ModelAPIError", True),
            ]
        ],
    )
    def test_a_failure_is_the_matching_one_of_langchain(self, teller, form: Form, fault: Fault, expected, retryable):
        teller.always(fault)
        with pytest.raises(getattr(langchain, expected)) as caught:
            ask(through(teller, timeout=5), form)
        assert isinstance(caught.value, GatewayError)
        assert caught.value.is_retryable is retryable
        assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)

    @pytest.mark.parametrize("form", FORMS)
    def test_a_server_that_is_not_there_is_a_connection_error(self, form: Form):
        model = ChatHFGateway(model=MODEL, targets=[f"openai:{dead_url()}"], max_retries=0)
        with pytest.raises(langchain.ModelConnectionError):
            ask(model, form)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("texts", [[], ["\ud800"]], ids=["none", "no text"])
    def test_messages_that_make_no_sense_are_refused_before_anything_is_sent(self, teller, form: Form, texts):
        with pytest.raises(langchain.ModelInvalidRequestError):
            ask(through(teller), form, [HumanMessage(text) for text in texts])
        assert teller.count() == 0


class TestAsync:
    async def test_it_is_native_and_needs_no_thread(self, teller):
        # ChatHuggingFace over a pipeline: ainvoke raises NotImplementedError, astream AttributeError (langchain#34134).
        class Forbidden(ThreadPoolExecutor):
            def submit(self, *_: Any, **__: Any) -> Any:
                raise AssertionError("a thread was asked for")

        model = through(teller)
        await model.ainvoke("the first call reads files in a thread, and the ones after it need none")
        asyncio.get_running_loop().set_default_executor(Forbidden())
        assert (await model.ainvoke("hi")).text == STORY
        assert "".join([piece.text async for piece in model.astream("hi")]) == STORY

    async def test_it_never_blocks_the_event_loop(self, teller, other):
        model = through(teller, other)
        with blockbuster_ctx():
            assert (await model.ainvoke("hi")).text == STORY
            teller.always(Reply(503, "busy"))
            assert "".join([piece.text async for piece in model.astream("hi")]) == OTHER

    def test_the_first_call_of_a_process_imports_nothing_of_ours_on_the_event_loop(self, teller):
        code = (
            "import asyncio, sys\n"
            "from langchain_hf_gateway import ChatHFGateway\n"
            f"model = ChatHFGateway(model='{MODEL}', targets=['openai:{teller.url}'])\n"
            "ours = []\n"
            "class Watch:\n"
            "    def find_spec(self, name, *_):\n"
            "        try:\n"
            "            asyncio.get_running_loop()\n"
            "        except RuntimeError:\n"
            "            return\n"
            "        if name.split('.')[0].endswith(('hf_gateway', 'httpx', 'httpcore', 'ssl')): ours.append(name)\n"
            "sys.meta_path.insert(0, Watch())\n"
            "print(asyncio.run(model.ainvoke('hi')).text, ours)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.stdout.strip(), done.returncode) == (f"{STORY} []", 0), done.stderr

    def test_the_same_instance_serves_one_event_loop_after_another(self, teller):
        model = through(teller)
        assert [ask(model, form).text for form in FORMS * 2] == [STORY] * 8
