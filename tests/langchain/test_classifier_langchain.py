"""HFGatewayClassifier as a step of LangChain's chains: routing, batches, async, events, errors."""

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from hf_gateway import ClassifyGateway, Gateway, errors
from tests.servers.images import png
from tests.servers.labels import LABELS, expected, paired
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.classifiers import MODEL
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core import exceptions
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnablePassthrough

    from langchain_hf_gateway import HFGatewayClassifier

TEXTS = [f"question {number}" for number in range(12)]


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as started:
        yield started


def classifier(server: Any, **arguments: Any) -> "HFGatewayClassifier":
    return HFGatewayClassifier(**{"model": MODEL, "targets": [f"openai:{server.url}"], "max_retries": 0, **arguments})


def described(text: str) -> dict[str, Any]:
    labels = [{"label": label, "score": pytest.approx(score)} for label, score in expected(text)]
    return {"input": text, **labels[0], "labels": labels}


class TestRunnable:
    @pytest.mark.parametrize("form", ["invoke", "ainvoke", "batch", "abatch", "stream"])
    def test_returns_the_input_with_its_labels(self, server: FakeOpenAI, form: str) -> None:
        runnable = classifier(server)
        if form == "invoke":
            found = [runnable.invoke(text) for text in TEXTS]
        elif form == "ainvoke":

            async def each() -> list[Any]:
                return list(await asyncio.gather(*(runnable.ainvoke(text) for text in TEXTS)))

            found = asyncio.run(each())
        elif form == "stream":
            found = [piece for text in TEXTS for piece in runnable.stream(text)]
        else:
            found = runnable.batch(TEXTS) if form == "batch" else asyncio.run(runnable.abatch(TEXTS))
            assert server.count("/v1/classify") == 1
        assert found == list(map(described, TEXTS))

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_routes_in_a_branch(self, server: FakeOpenAI, asynchronous: bool) -> None:
        branch = RunnableBranch(
            *(
                (
                    RunnableLambda(lambda found, label=label: found["label"] == label),
                    RunnableLambda(lambda found, label=label: f"{label}: {found['input']}"),
                )
                for label in LABELS[:2]
            ),
            RunnableLambda(lambda found: f"else: {found['input']}"),
        )
        route = classifier(server) | branch
        found = asyncio.run(route.abatch(TEXTS)) if asynchronous else route.batch(TEXTS)
        best = [expected(text)[0][0] for text in TEXTS]
        assert found == [
            f"{label if label in LABELS[:2] else 'else'}: {text}" for label, text in zip(best, TEXTS, strict=True)
        ]
        assert len(set(best)) == 3

    def test_takes_labels_from_the_class_and_from_a_call(self) -> None:
        with FakeTEI(model_type="classifier", model_id=MODEL, labels=("contradiction", "neutral", "entailment")) as tei:
            runnable = HFGatewayClassifier(model=MODEL, targets=[f"tei:{tei.url}"], labels=["a", "b"])
            assert [each["label"] for each in runnable.invoke("x")["labels"]] == paired("x", ["a", "b"])["labels"]
            bound = runnable.bind(labels=["c", "d", "e"], top_k=1)
            assert [each["label"] for each in bound.invoke("x")["labels"]] == paired("x", ["c", "d", "e"])["labels"][:1]
            assert runnable.batch(["x", "y"], labels=["c"])[1]["label"] == "c"

    def test_assigns_labels_beside_other_steps(self, server: FakeOpenAI) -> None:
        chain = RunnablePassthrough.assign(kind=RunnableLambda(lambda found: found["text"]) | classifier(server))
        assert chain.invoke({"text": "a"})["kind"] == described("a")

    def test_notifies_callbacks_of_each_input(self, server: FakeOpenAI) -> None:
        class Seen(BaseCallbackHandler):
            """Records what it is notified of."""

            def __init__(self) -> None:
                self.ended: list[Any] = []

            def on_chain_end(self, outputs: Any, **_: Any) -> None:
                self.ended.append(outputs)

        seen = Seen()
        classifier(server).batch(TEXTS[:3], {"callbacks": [seen]})
        assert [each["input"] for each in seen.ended] == TEXTS[:3]


class TestErrors:
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_are_langchains_too(self, server: FakeOpenAI, asynchronous: bool) -> None:
        runnable = classifier(server)
        server.always(Reply(429, {"error": "slow down"}))
        with pytest.raises(exceptions.ModelRateLimitError) as caught:
            asyncio.run(runnable.ainvoke("a")) if asynchronous else runnable.invoke("a")
        assert isinstance(caught.value, errors.RateLimited)
        with pytest.raises(exceptions.ModelInvalidRequestError, match="text 0 of 1 is empty"):
            asyncio.run(runnable.abatch([""])) if asynchronous else runnable.batch([""])

    def test_take_the_place_of_the_inputs_of_a_batch(self, server: FakeOpenAI) -> None:
        server.always(Reply(401))
        found = classifier(server).batch(["a", "b"], return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["AuthenticationFailed"] * 2
        assert classifier(server).batch([]) == []

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_of_some_inputs_leave_the_others_their_labels(self, server: FakeOpenAI, asynchronous: bool) -> None:
        runnable = classifier(server)
        texts: list[Any] = ["one", " ", "two", "three", png("a"), "four"]
        found = (
            asyncio.run(runnable.abatch(texts, return_exceptions=True))
            if asynchronous
            else runnable.batch(texts, return_exceptions=True)
        )
        assert [each == described(text) for text, each in zip(texts, found, strict=True)] == [
            True,
            False,
            True,
            True,
            False,
            True,
        ]
        assert isinstance(found[1], exceptions.ModelInvalidRequestError)
        assert "text 0 of 1 has nothing but blanks" in str(found[1])
        assert isinstance(found[4], errors.GatewayError)

    def test_of_the_service_are_found_by_one_call(self, server: FakeOpenAI) -> None:
        server.always(Reply(401))
        assert len(classifier(server).batch(["a", "b", "c", "d"], return_exceptions=True)) == 4
        assert server.count("/v1/classify") == 1

    def test_of_arguments_name_the_nearest_one(self) -> None:
        with pytest.raises(errors.ConfigError, match="did you mean 'labels'"):
            HFGatewayClassifier(model=MODEL, label=["a"])
        with pytest.raises(errors.InvalidRequest, match="labels are for texts"):
            HFGatewayClassifier(model=MODEL, targets=["tei:http://tei"], labels=["a"]).invoke(png("a"))


class TestInstance:
    def test_comes_from_a_gateway_a_pickle_and_a_copy(self, server: FakeOpenAI) -> None:
        gateway = ClassifyGateway(MODEL, [f"openai:{server.url}"], top_k=2)
        runnable = HFGatewayClassifier.from_gateway(gateway)
        assert runnable.gateway is gateway
        assert (runnable.top_k, runnable.model) == (2, MODEL)
        for made in (
            pickle.loads(pickle.dumps(runnable)),
            runnable.model_copy(),
            runnable.model_copy(update={"top_k": 2}),
        ):
            assert len(made.invoke("a")["labels"]) == 2
        with pytest.raises(errors.ConfigError, match="is for classification"):
            HFGatewayClassifier.from_gateway(Gateway(targets=["hash"]))

    def test_describes_its_input_and_output(self, server: FakeOpenAI) -> None:
        runnable = classifier(server)
        assert "LabelScore" in runnable.get_output_jsonschema()["$defs"]
        assert "anyOf" in runnable.get_input_jsonschema()
        assert (runnable | RunnableLambda(lambda found: found["label"])).get_graph().nodes

    def test_shows_no_key(self) -> None:
        made = HFGatewayClassifier(model=MODEL, targets=["hf"], api_key="hf_secret_of_a_test")
        for shown in (repr(made), str(made.to_json()), made.model_dump_json(), str(made.model_dump())):
            assert "hf_secret" not in shown

    def test_is_read_from_the_config_file(self, server: FakeOpenAI, tmp_path: Any) -> None:
        file = tmp_path / "hf-gateway.toml"
        file.write_text(
            f'[chains.route]\ntask = "classification"\nmodel = "{MODEL}"\ntargets = ["openai:{server.url}"]\ntop_k = 1\n'
        )
        assert len(HFGatewayClassifier.from_config("route", file).invoke("a")["labels"]) == 1
