"""HFGatewaySelector: choices for LlamaIndex's routers, judged by a model for natural language inference."""

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from hf_gateway import ClassifyGateway, errors
from tests.servers.labels import NLI, logits, paired, softmax
from tests.servers.tei import FakeTEI
from tests.support.classifiers import MODEL
from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core import QueryBundle
    from llama_index.core.base.response.schema import Response
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
    from llama_index.core.tools import QueryEngineTool, ToolMetadata

    from llamaindex_hf_gateway import HFGatewaySelector

    class Echo(CustomQueryEngine):
        """Answers with its name."""

        name: str

        def custom_query(self, query_str: str) -> Response:
            return Response(f"{self.name}: {query_str}")

        async def acustom_query(self, query_str: str) -> Response:
            return self.custom_query(query_str)


CHOICES = ["questions about invoices", "questions about parcels", "questions about the weather"]
FORMS = ("select", "aselect")


@pytest.fixture
def server() -> Iterator[FakeTEI]:
    with FakeTEI(model_type="classifier", model_id=MODEL, labels=NLI) as started:
        yield started


def selector(server: FakeTEI, **arguments: Any) -> "HFGatewaySelector":
    return HFGatewaySelector(**{"model": MODEL, "targets": [f"tei:{server.url}"], **arguments})


def select(made: "HFGatewaySelector", form: str, choices: Any, query: Any) -> Any:
    return made.select(choices, query) if form == "select" else asyncio.run(made.aselect(choices, query))


def probability(query: str, choice: str) -> float:
    contradicts, _, entails = logits(f"{query}\nThis example is {choice}.", NLI)
    return softmax([entails, contradicts])[0]


@pytest.mark.parametrize("form", FORMS)
class TestSelection:
    def test_of_one_choice_is_the_best(self, server: FakeTEI, form: str) -> None:
        made = selector(server)
        for number in range(6):
            query = f"question {number}"
            found = select(made, form, CHOICES, query)
            answer = paired(query, CHOICES)
            assert found.ind == CHOICES.index(answer["labels"][0])
            assert found.reason == f"description scored {answer['scores'][0]:.3f} by tei:{server.url}"

    def test_of_several_has_those_above_the_threshold_and_at_least_the_best(self, server: FakeTEI, form: str) -> None:
        made, strict = selector(server, select_multi=True), selector(server, select_multi=True, threshold=1.0)
        sizes = set()
        for number in range(8):
            query = f"question {number}"
            scores = {choice: probability(query, choice) for choice in CHOICES}
            ranked = sorted(CHOICES, key=lambda choice: -scores[choice])
            wanted = [choice for choice in ranked if scores[choice] >= 0.5] or ranked[:1]
            assert select(made, form, CHOICES, query).inds == [CHOICES.index(choice) for choice in wanted]
            assert select(strict, form, CHOICES, query).inds == [CHOICES.index(ranked[0])]
            sizes.add(len(wanted))
        assert len(sizes) > 1

    def test_is_limited_by_max_outputs(self, server: FakeTEI, form: str) -> None:
        made = selector(server, select_multi=True, threshold=0.0, max_outputs=2)
        assert len(select(made, form, CHOICES, "a question").inds) == 2

    def test_takes_tools_and_judges_them_by_description_or_name(self, server: FakeTEI, form: str) -> None:
        tools = [ToolMetadata(description=choice, name=f"tool{place}") for place, choice in enumerate(CHOICES)]
        select(selector(server), form, tools, QueryBundle("a question"))
        assert [pair[1] for pair in server.requests[-1].json["inputs"]] == [
            f"This example is {each}." for each in CHOICES
        ]
        select(selector(server, judge_by="name", hypothesis_template="It is for {}."), form, tools, "a question")
        assert [pair[1] for pair in server.requests[-1].json["inputs"]] == [
            f"It is for tool{place}." for place in range(3)
        ]

    def test_of_a_single_choice_asks_nothing(self, server: FakeTEI, form: str) -> None:
        first = select(selector(server), form, CHOICES[:1], "a question")
        assert first.ind == 0
        first.selections.clear()
        assert select(selector(server), form, CHOICES[1:2], "a question").ind == 0  # not the same object
        assert server.requests == []

    @pytest.mark.parametrize(
        ("choices", "words"),
        [
            ([], "there are no choices"),
            (["a", "a"], "choices 0 and 1 have the same description 'a'"),
            (["a", " "], "choice 1 of 2 has no description"),
        ],
    )
    def test_of_choices_that_cannot_be_told_apart_is_refused(
        self, server: FakeTEI, form: str, choices: list[str], words: str
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match=words):
            select(selector(server), form, choices, "a question")
        assert server.requests == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_router_asks_the_engine_that_was_selected(server: FakeTEI, asynchronous: bool) -> None:
    tools = [
        QueryEngineTool(
            query_engine=Echo(name=f"engine{place}"), metadata=ToolMetadata(description=choice, name=f"e{place}")
        )
        for place, choice in enumerate(CHOICES)
    ]
    router = RouterQueryEngine(selector=selector(server), query_engine_tools=tools, llm=MockLLM())
    chosen = set()
    for number in range(6):
        query = f"question {number}"
        answer = asyncio.run(router.aquery(query)) if asynchronous else router.query(query)
        best = CHOICES.index(paired(query, CHOICES)["labels"][0])
        assert str(answer) == f"engine{best}: {query}"
        assert answer.metadata["selector_result"].ind == best
        chosen.add(best)
    assert len(chosen) > 1


class TestInstance:
    def test_comes_from_a_gateway_and_a_pickle(self, server: FakeTEI) -> None:
        gateway = ClassifyGateway(MODEL, [f"tei:{server.url}"])
        made = HFGatewaySelector.from_gateway(gateway, select_multi=True, threshold=0.0)
        assert made.gateway is gateway
        for each in (made, pickle.loads(pickle.dumps(made))):
            assert len(each.select(CHOICES, "a question").inds) == 3

    def test_has_no_use_for_labels(self, server: FakeTEI) -> None:
        for wrong in ({"labels": ["a"]}, {"multi_label": True}, {"top_k": 1}):
            with pytest.raises(errors.ConfigError, match="its choices are the labels"):
                selector(server, **wrong)
        with pytest.raises(errors.ConfigError, match="did you mean 'threshold'"):
            selector(server, treshold=0.4)

    def test_has_no_prompts_and_shows_no_key(self) -> None:
        made = HFGatewaySelector(model=MODEL, targets=["hf"], api_key="hf_secret_of_a_test")
        assert made.get_prompts() == {}
        assert "hf_secret" not in f"{made!r} {made.model_dump()}"
