"""ChatHFGateway among LangChain's caches, tracers and registries; its profile, its tokens, and what its import costs.

A comment names the fault elsewhere that a test stands against.
"""

import asyncio
import copy
import importlib
import pickle
import threading
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Target
from tests.project.test_imports import packages_after
from tests.servers.chat import script
from tests.servers.loopback import dead_url
from tests.servers.openai import FakeOpenAI
from tests.servers.router import LLAMA, MINILM, FakeRouter
from tests.support.askers import FORMS, MODEL, Form, ask, sent, through
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain.chat_models import init_chat_model
    from langchain_core.caches import InMemoryCache
    from langchain_core.callbacks import UsageMetadataCallbackHandler
    from langchain_core.messages import HumanMessage
    from langchain_core.rate_limiters import BaseRateLimiter
    from langchain_core.runnables import ConfigurableField

    from langchain_hf_gateway import ChatHFGateway, register


STORY = "Once upon a time there was a gate"
WHOLE: tuple[Form, ...] = ("invoke", "ainvoke")


@pytest.fixture
def teller():
    with FakeOpenAI(models=None, brain=script(STORY)) as server:
        yield server


class TestCache:
    VARIANTS: tuple[dict[str, Any], ...] = (
        {"model": "org/another"},
        {"temperature": 0.5},
        {"seed": 1},
        {"stop": ["never"]},
        {"extra_body": {"min_p": 0.1}},
        {"revision": "main"},
        {"targets": ["openai:{url}/v1"]},
    )

    @pytest.mark.parametrize("form", WHOLE)
    def test_another_model_target_or_sampling_is_another_key(self, teller, form: Form):
        # ChatHuggingFace and ChatOllama have one key for all models.
        cache = InMemoryCache()
        ask(through(teller, cache=cache), form)
        ask(through(teller, cache=cache, timeout=7), form)
        assert teller.count() == 1
        for place, variant in enumerate(self.VARIANTS, 2):
            named = {
                name: [each.format(url=teller.url) for each in value] if name == "targets" else value
                for name, value in variant.items()
            }
            for _ in range(2):
                assert ask(through(teller, cache=cache, **named), form).text == STORY
            assert teller.count() == place, variant

    def test_what_a_call_says_itself_is_in_the_key(self, teller):
        model = through(teller, cache=InMemoryCache(), stop=["never"])
        for call in ({}, {"stop": ["never"]}, {"stop": ["ever"]}, {"temperature": 1.0}, {"model": "org/another"}):
            ask(model, **call)
        # A stop that is the instance's own changes nothing.
        assert teller.count() == 4

    def test_a_cached_answer_is_whole(self, teller):
        model = through(teller, cache=InMemoryCache())
        first, second = ask(model), ask(model)
        assert (second.text, second.response_metadata) == (first.text, first.response_metadata)

    def test_with_cache_false_nothing_is_kept(self, teller):
        # langchain#26310: cached nevertheless.
        model = through(teller, cache=False)
        ask(model)
        ask(model)
        assert teller.count() == 2


class TestProfile:
    @pytest.fixture(autouse=True)
    def _home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def router(self):
        with FakeRouter() as server:
            yield server

    def hosted(self, router: FakeRouter, provider: str | None = None, **arguments: Any) -> "ChatHFGateway":
        target = Target("hf", url=router.url, provider=provider, credential="hf_test")
        return ChatHFGateway(**{"model": LLAMA, "targets": [target], **arguments})

    def test_it_is_what_the_routers_catalogue_says_and_asked_for_when_it_is_read(self, router):
        # ChatHuggingFace ships 78 profiles, and `profile` is None always.
        model = self.hosted(router, "nebius")
        assert router.count() == 0
        expected = {
            "max_input_tokens": 131072,
            "tool_calling": True,
            "structured_output": True,
            "image_inputs": False,
        }
        assert (model.profile, router.count()) == (expected, 1)
        assert model.profile is model.profile
        assert (self.hosted(router, "novita").profile or {})["structured_output"] is False
        assert (self.hosted(router).profile or {})["max_input_tokens"] == 16384
        assert router.count() == 1

    def test_what_nobody_says_is_not_in_it(self, router):
        assert self.hosted(router, model="google/gemma-2-2b-it").profile == {
            "tool_calling": False,
            "structured_output": False,
            "image_inputs": False,
        }
        assert self.hosted(router, model="nobody/knows").profile is None

    async def test_in_an_event_loop_it_is_what_this_machine_knows_already(self, router):
        model = self.hosted(router, "nebius")
        assert model.profile is None
        with blockbuster_ctx():
            assert model.profile is None
        assert router.count() == 0
        await asyncio.to_thread(lambda: self.hosted(router).profile)
        assert (model.profile or {})["max_input_tokens"] == 131072
        assert router.count() == 1

    def test_the_users_own_wins(self, router):
        assert self.hosted(router, profile={"max_input_tokens": 7}).profile == {"max_input_tokens": 7}
        model = self.hosted(router)
        model.profile = {"tool_calling": True}
        assert model.profile == {"tool_calling": True}
        assert router.count() == 0

    def test_other_targets_have_none_unless_they_are_told(self, primary):
        assert through(primary).profile is None
        assert primary.count() == 0
        told = Target("ollama", options={"num_ctx": 4096})
        assert ChatHFGateway(model="llama3.1", targets=[told]).profile == {"max_input_tokens": 4096}

    def test_a_router_that_is_not_there_breaks_nothing(self):
        target = Target("hf", url=dead_url(), credential="hf_test")
        assert ChatHFGateway(model=LLAMA, targets=[target]).profile is None

    def test_subclasses_copies_and_pickles_have_it_too(self, router):
        class Mine(ChatHFGateway):
            """As people make them."""

        model = self.hosted(router, "nebius")
        others = [Mine(model=LLAMA, targets=model.targets), model.model_copy(), model.model_copy(update={"seed": 1})]
        assert router.count() == 0
        others.append(copy.deepcopy(model))
        assert [(each.profile or {})["max_input_tokens"] for each in others] == [131072] * len(others)
        assert model.model_dump().keys() == model.model_copy().model_dump().keys()
        assert "profile" not in pickle.loads(pickle.dumps(self.hosted(router))).model_fields_set


class TestTokens:
    def test_they_are_counted_by_the_models_own_tokenizer_where_it_is_here(self):
        model = ChatHFGateway(model=MINILM, targets=[f"openai:{dead_url()}"])
        assert model.get_token_ids("hello world, how are you") == [7592, 2088, 1010, 2129, 2024, 2017]
        assert model.get_num_tokens("hello world, how are you") == 6

    def test_elsewhere_they_are_estimated_from_the_bytes(self):
        model = ChatHFGateway(model=LLAMA, targets=["ollama:llama3.1:8b"])
        assert [model.get_num_tokens(text) for text in ("", "four", "fives", "ünï")] == [0, 1, 2, 2]
        assert model.get_num_tokens_from_messages([HumanMessage("four")]) == 3  # "Human: four"
        with pytest.raises(NotImplementedError, match="get_num_tokens estimates"):
            model.get_token_ids("four")

    def test_a_users_own_tokenizer_wins(self):
        model = ChatHFGateway(model=MINILM, custom_get_token_ids=lambda text: [len(text)])
        assert (model.get_token_ids("four"), model.get_num_tokens("four")) == ([4], 1)


class TestImports:
    LANGCHAIN = "from langchain_core.language_models import BaseChatModel"

    def test_the_class_adds_itself_only(self):
        # langchain#36835, #38374: transformers and torch came with the import.
        added = packages_after("import langchain_hf_gateway; langchain_hf_gateway.ChatHFGateway", self.LANGCHAIN)
        # LangChain loads its modules lazily, and pydantic some of its own.
        assert added - {"langchain_core", "pydantic"} == {"hf_gateway", "langchain_hf_gateway"}

    def test_conversing_and_counting_tokens_need_nothing_heavy(self, teller):
        # BaseChatModel counts tokens by GPT-2's tokenizer, for which it imports transformers and asks the Hub.
        code = f"""
from langchain_hf_gateway import ChatHFGateway
model = ChatHFGateway(model={MODEL!r}, targets=["openai:{teller.url}"])
answer = model.invoke("hi")
model.get_num_tokens_from_messages([answer])
"""
        heavy = {"torch", "transformers", "sentence_transformers", "numpy"}
        assert not packages_after(code, self.LANGCHAIN) & heavy


class TestEcosystem:
    def test_copies_and_pickles_answer_the_same_with_a_chain_of_their_own(self, teller):
        model = through(teller, temperature=0)
        model.seed = 3
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.model_copy(update={"top_p": 0.5})):
            assert ask(other).text == STORY
            assert (sent(teller)["temperature"], sent(teller)["seed"]) == (0, 3)
            assert other.gateway is not model.gateway
        assert sent(teller)["top_p"] == 0.5
        assert model.model_copy().gateway is model.gateway

    def test_pickled_it_keeps_the_chain_that_the_environment_gave_it(self, teller, monkeypatch):
        monkeypatch.setenv("HF_GATEWAY_CHAT_TARGETS", f"openai:{teller.url}")
        data = pickle.dumps(ChatHFGateway(model=MODEL))
        monkeypatch.delenv("HF_GATEWAY_CHAT_TARGETS")
        assert ask(pickle.loads(data)).text == STORY

    def test_fields_can_be_made_configurable(self, teller):
        model = through(teller, temperature=0).configurable_fields(temperature=ConfigurableField(id="heat"))
        ask(model, config={"configurable": {"heat": 0.5}})
        assert sent(teller)["temperature"] == 0.5

    @pytest.mark.parametrize("form", FORMS)
    def test_a_rate_limiter_is_asked_before_each_request(self, teller, form: Form):
        seen: list[int] = []

        class Limiter(BaseRateLimiter):
            def acquire(self, *, blocking: bool = True) -> bool:
                seen.append(teller.count())
                return blocking

            async def aacquire(self, *, blocking: bool = True) -> bool:
                return self.acquire(blocking=blocking)

        model = through(teller, rate_limiter=Limiter())
        ask(model, form)
        ask(model, form)
        assert seen == [0, 1]

    @pytest.mark.parametrize("form", FORMS)
    def test_traces_name_the_model_and_the_tokens(self, teller, form: Form):
        usage = UsageMetadataCallbackHandler()
        model = through(teller, temperature=0, max_tokens=50, stop="never")
        ask(model, form, config={"callbacks": [usage]})
        assert usage.usage_metadata[MODEL]["output_tokens"] == 8
        assert model._get_ls_params(model="org/another") == {
            "ls_provider": "hf-gateway",
            "ls_model_name": "org/another",
            "ls_model_type": "chat",
            "ls_temperature": 0,
            "ls_max_tokens": 50,
            "ls_stop": ["never"],
        }
        assert ChatHFGateway(targets=["ollama:llama3.1"])._get_ls_params()["ls_model_name"] == "llama3.1"

    def test_a_batch_runs_at_once(self, teller):
        together = threading.Barrier(4, timeout=10)
        teller.on_request = lambda _: together.wait() and None
        assert [answer.text for answer in through(teller).batch(["hi"] * 4)] == [STORY] * 4

    def test_init_chat_model_knows_the_class_once_it_is_registered(self, monkeypatch):
        for name in ("langchain.chat_models.base", "langchain.embeddings.base"):
            known = importlib.import_module(name)._BUILTIN_PROVIDERS
            monkeypatch.setattr(f"{name}._BUILTIN_PROVIDERS", dict(known))
        register()
        register()
        # init_chat_model("huggingface:..."): a pipeline in this process, whatever was meant; max_tokens in model_kwargs.
        model = init_chat_model(f"hf_gateway:{LLAMA}", targets=["hf:nebius"], max_tokens=7)
        assert isinstance(model, ChatHFGateway)
        assert (model.model, model.max_tokens, model.gateway.targets[0].label) == (LLAMA, 7, "hf:nebius")

    @pytest.mark.parametrize("found", ["nothing", (), {"openai": "langchain_openai"}])
    def test_register_says_what_to_do_if_langchain_has_changed_and_changes_nothing(self, found, monkeypatch):
        embeddings = importlib.import_module("langchain.embeddings.base")
        monkeypatch.setattr(embeddings, "_BUILTIN_PROVIDERS", known := dict(embeddings._BUILTIN_PROVIDERS))
        if found == "nothing":
            monkeypatch.delattr("langchain.chat_models.base._BUILTIN_PROVIDERS")
        else:
            monkeypatch.setattr("langchain.chat_models.base._BUILTIN_PROVIDERS", found)
        before = dict(known)
        with pytest.raises(RuntimeError, match=r"use langchain_hf_gateway\.ChatHFGateway\(model=\.\.\.\) instead"):
            register()
        assert known == before
