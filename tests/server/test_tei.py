"""text-embeddings-inference's routes, at the root and below `/tei/{chain}`."""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.gateway_server import RunningServer, gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway import ClassifyGateway, Gateway, RerankGateway, SparseGateway

CHAINS = """
[chains.docs]
targets = ["hash:64"]

[chains.other]
targets = ["hash:32"]

[chains.words]
task = "sparse"
targets = ["bm25"]

[chains.order]
task = "rerank"
targets = ["lexical"]

[server]
default_embedding = "docs"
"""
DRAWING = """
[chains.draw]
task = "image"
model = "owner/draw"
targets = ["openai:{}"]
"""
TEXTS = ["catch an exception", "list comprehensions", "\N{SNOWMAN} snow"]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with gateway_server(CHAINS) as running:
        yield running


@pytest.fixture(params=["", "/tei/docs"])
def base(request: pytest.FixtureRequest) -> str:
    """Where the chain `docs` is served."""
    return str(request.param)


class TestEmbed:
    def test_has_the_gateways_own_numbers_and_names_their_space_and_target(
        self, client: httpx.Client, base: str
    ) -> None:
        with Gateway(targets=["hash:64"]) as gateway:
            result = gateway.embed(TEXTS)
        answer = client.post(f"{base}/embed", json={"inputs": TEXTS})
        assert answer.json() == result.vectors.tolist()
        assert answer.headers["x-hf-gateway-space"] == result.space.id
        assert answer.headers["x-hf-gateway-served-by"] == "hash:64"
        assert answer.headers["x-compute-characters"] == str(sum(map(len, TEXTS)))

    def test_answers_one_text_with_a_list_of_one(self, client: httpx.Client, base: str) -> None:
        one = client.post(f"{base}/embed", json={"inputs": TEXTS[0]}).json()
        assert one == client.post(f"{base}/embed", json={"inputs": TEXTS[:1]}).json()
        assert len(one) == 1

    def test_cuts_vectors_and_names_the_space_of_those(self) -> None:
        with FakeTEI() as fake:
            config = f'[chains.docs]\nmodel = "{fake.model_id}"\ntargets = ["tei:{fake.url}"]\n'
            with gateway_server(config) as running, running.client() as client:
                whole = client.post("/embed", json={"inputs": "x"})
                short = client.post("/embed", json={"inputs": "x", "dimensions": 4})
                info = client.get("/info").json()
        assert [len(short.json()[0]), len(whole.json()[0])] == [4, 384]
        assert whole.headers["x-hf-gateway-space"] == info["space_id"] != short.headers["x-hf-gateway-space"]

    def test_scales_to_length_1_where_that_is_asked_for(self) -> None:
        with FakeTEI(embed=lambda texts: [[3.0, 4.0] for _ in texts]) as fake:
            config = f"""
[chains.docs]
model = "owner/long"
[[chains.docs.targets]]
kind = "tei"
url = "{fake.url}"
[chains.docs.targets.space]
model = "owner/long"
normalized = false
"""
            with gateway_server(config) as running, running.client() as client:
                spaces = {}
                for form, expected in ((None, 5.0), (False, 5.0), (True, 1.0)):
                    answer = client.post("/embed", json={"inputs": "x", "normalize": form})
                    assert math.hypot(*answer.json()[0]) == pytest.approx(expected)
                    spaces[form] = answer.headers["x-hf-gateway-space"]
        assert spaces[None] == spaces[False] != spaces[True]

    def test_refuses_lengths_that_are_not_known_any_more(self, client: httpx.Client, base: str) -> None:
        answer = client.post(f"{base}/embed", json={"inputs": "x", "normalize": False})
        assert answer.status_code == 400
        assert "length 1" in answer.json()["error"]

    def test_truncates_by_the_request_then_by_the_chain(self) -> None:
        long = "word " * 400
        with FakeTEI() as fake:
            for setting in (True, False):
                config = (
                    f'[chains.docs]\nmodel = "m"\ntruncate = {str(setting).lower()}\ntargets = ["tei:{fake.url}"]\n'
                )
                with gateway_server(config) as running, running.client() as client:
                    assert client.get("/info").json()["auto_truncate"] is setting
                    statuses = {
                        form: client.post("/embed", json={"inputs": long, "truncate": form}).status_code
                        for form in (None, True, False)
                    }
                assert statuses == {None: 200 if setting else 400, True: 200, False: 400}

    def test_a_text_that_is_too_long_has_a_code(self) -> None:
        with FakeTEI() as fake:
            config = f'[chains.docs]\nmodel = "m"\ntargets = ["tei:{fake.url}"]\n'
            with gateway_server(config) as running, running.client() as client:
                error = client.post("/embed", json={"inputs": "word " * 400}).json()
        assert (error["code"], error["error_type"]) == ("context_length_exceeded", "Validation")

    @pytest.mark.parametrize(
        ("name", "sent"),
        [(None, "passage: x"), ("document", "passage: x"), ("passage", "passage: x"), ("query", "query: x")],
    )
    def test_puts_the_prompt_of_a_role_before_texts(self, name: str | None, sent: str) -> None:
        with FakeTEI(model_id="owner/prompts") as fake:
            config = f"""
[chains.docs]
model = "owner/prompts"
[[chains.docs.targets]]
kind = "tei"
url = "{fake.url}"
[chains.docs.targets.space]
model = "owner/prompts"
query_prompt = "query: "
document_prompt = "passage: "
"""
            with gateway_server(config) as running, running.client() as client:
                assert client.post("/embed", json={"inputs": "x", "prompt_name": name}).status_code == 200
            assert fake.requests[-1].json["inputs"] == [sent]

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({}, "inputs: Field required"),
            ({"inputs": ""}, "is empty"),
            ({"inputs": ["x"], "prompt_name": "title"}, "query and document"),
            ({"inputs": [1, 2]}, "token ids"),
            ({"inputs": ["x"], "dimensions": 0}, "dimensions"),
            ({"inputs": ["x"], "dimensions": 65}, "dimensions"),
            ({"inputs": ["x"], "truncate": "yes"}, "truncate"),
            ({"inputs": ["x"] * 2049}, "2,049 entries"),
        ],
    )
    def test_refuses_what_is_invalid_in_teis_form(
        self, client: httpx.Client, base: str, body: object, words: str
    ) -> None:
        answer = client.post(f"{base}/embed", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error_type"] == "Validation"
        assert words in answer.json()["error"]

    def test_embeds_no_text_into_no_vector(self, client: httpx.Client, base: str) -> None:
        assert client.post(f"{base}/embed", json={"inputs": []}).json() == []

    def test_a_demanded_space_is_served_and_another_one_is_412_before_any_target_is_asked(self) -> None:
        with FakeTEI() as fake:
            config = f'[chains.docs]\nmodel = "m"\ntargets = ["tei:{fake.url}"]\n'
            with gateway_server(config) as running, running.client() as client:
                space = client.get("/info").headers["x-hf-gateway-space"]
                assert fake.requests == []
                other = client.post("/embed", json={"inputs": "x"}, headers={"x-hf-gateway-space": "m#000000000000"})
                assert fake.requests == []
                same = client.post("/embed", json={"inputs": "x"}, headers={"x-hf-gateway-space": space})
        assert (other.status_code, other.headers["x-hf-gateway-space"]) == (412, space)
        assert (same.status_code, same.headers["x-hf-gateway-space"]) == (200, space)

    @pytest.mark.parametrize(
        ("status", "expected", "kind"), [(429, 429, "Overloaded"), (503, 503, "Unhealthy"), (500, 502, "Backend")]
    )
    def test_a_failure_of_the_target_has_teis_word_for_it(self, status: int, expected: int, kind: str) -> None:
        with FakeTEI() as fake:
            config = f'[chains.docs]\nmodel = "m"\nmax_retries = 0\ntargets = ["tei:{fake.url}"]\n'
            with gateway_server(config) as running, running.client() as client:
                fake.always(Reply(status))
                answer = client.post("/embed", json={"inputs": "x"})
            assert (answer.status_code, answer.json()["error_type"]) == (expected, kind)
            assert fake.url not in answer.text
            assert answer.headers["x-should-retry"] == "false"


class TestSparse:
    @pytest.mark.parametrize("base", ["", "/tei/words"])
    def test_has_the_gateways_own_entries_in_both_roles(self, client: httpx.Client, base: str) -> None:
        with SparseGateway(targets=["bm25"]) as gateway:
            for role in ("document", "query"):
                result = gateway.embed(TEXTS, role=role)
                answer = client.post(f"{base}/embed_sparse", json={"inputs": TEXTS, "prompt_name": role})
                expected = [vector.to_dict() for vector in result.vectors]
                found = [{entry["index"]: entry["value"] for entry in vector} for vector in answer.json()]
                assert found == expected
                assert answer.headers["x-hf-gateway-space"] == result.space.id
                assert answer.headers["x-hf-gateway-served-by"] == "bm25"

    def test_another_space_is_412(self, client: httpx.Client) -> None:
        headers = {"x-hf-gateway-space": "m#000000000000"}
        assert client.post("/embed_sparse", json={"inputs": "x"}, headers=headers).status_code == 412

    def test_a_server_without_such_a_chain_answers_404(self) -> None:
        with gateway_server() as running, running.client() as client:
            answer = client.post("/embed_sparse", json={"inputs": "x"})
        assert answer.status_code == 404
        assert "no chain for" in answer.json()["error"]


class TestRerank:
    @pytest.mark.parametrize("base", ["", "/tei/order"])
    def test_sorts_documents_and_says_that_bm25_is_no_probability(self, client: httpx.Client, base: str) -> None:
        with RerankGateway(targets=["lexical"]) as gateway:
            expected = [(hit.index, hit.score) for hit in gateway.rerank("exception", TEXTS)]
        answer = client.post(f"{base}/rerank", json={"query": "exception", "texts": TEXTS})
        assert [(rank["index"], rank["score"]) for rank in answer.json()] == expected
        assert answer.headers["x-hf-gateway-scale"] == "bm25"
        assert all(rank.keys() == {"index", "score"} for rank in answer.json())

    def test_returns_the_documents_on_request(self, client: httpx.Client) -> None:
        ranks = client.post("/rerank", json={"query": "snow", "texts": TEXTS, "return_text": True}).json()
        assert [rank["text"] for rank in ranks] == [TEXTS[rank["index"]] for rank in ranks]

    def test_returns_probabilities_or_logits_of_a_model(self) -> None:
        with FakeTEI(model_type="reranker") as fake:
            config = f'[chains.order]\ntask = "rerank"\nmodel = "m"\ntop_n = 1\ntargets = ["tei:{fake.url}"]\n'
            with gateway_server(config) as running, running.client() as client:
                body = {"query": "catch an exception", "texts": TEXTS}
                plain = client.post("/rerank", json=body)
                raw = client.post("/rerank", json={**body, "raw_scores": True}).json()
                info = client.get("/info").json()
        assert len(plain.json()) == len(raw) == 3
        assert [rank["index"] for rank in plain.json()] == [rank["index"] for rank in raw]
        for probability, logit in zip(plain.json(), raw, strict=True):
            assert probability["score"] == pytest.approx(1 / (1 + math.exp(-logit["score"])))
        assert "x-hf-gateway-scale" not in plain.headers
        assert int(plain.headers["x-compute-tokens"]) > 0
        assert list(info["model_type"]) == ["reranker"]

    @pytest.mark.parametrize(
        "body", [{"query": "x"}, {"texts": ["x"]}, {"query": "", "texts": ["x"]}, {"query": "x", "texts": [""]}]
    )
    def test_refuses_what_is_invalid(self, client: httpx.Client, body: object) -> None:
        answer = client.post("/rerank", json=body)
        assert (answer.status_code, answer.json()["error_type"]) == (400, "Validation")


class TestPredict:
    @pytest.fixture
    def labels(self) -> Iterator[RunningServer]:
        with FakeTEI(model_type="classifier") as fake:
            config = f'[chains.feel]\ntask = "classification"\nmodel = "m"\ntargets = ["tei:{fake.url}"]\n'
            self.target = fake.url
            with gateway_server(config) as running:
                yield running

    @pytest.mark.parametrize("base", ["", "/tei/feel"])
    def test_labels_one_text_or_several(self, labels: RunningServer, base: str) -> None:
        with ClassifyGateway("m", targets=[f"tei:{self.target}"]) as gateway:
            expected = [
                [{"label": each.label, "score": each.score} for each in found] for found in gateway.classify(TEXTS)
            ]
        with labels.client() as client:
            several = client.post(f"{base}/predict", json={"inputs": [[text] for text in TEXTS]})
            one = client.post(f"{base}/predict", json={"inputs": TEXTS[0]})
            listed = client.post(f"{base}/predict", json={"inputs": [TEXTS[0]]})
        assert several.json() == expected
        assert one.json() == listed.json() == expected[0]
        assert one.headers["x-hf-gateway-served-by"] == "tei:m"

    @pytest.mark.parametrize("base", ["", "/tei/feel"])
    def test_labels_pairs_of_texts(self, labels: RunningServer, base: str) -> None:
        with httpx.Client(base_url=self.target, trust_env=False) as toolkit, labels.client() as client:
            for inputs in (["a b", "c"], [["a b", "c"]], [["a b", "c"], ["d", "e"], ["a b", "c"]]):
                expected = toolkit.post("/predict", json={"inputs": inputs})
                answer = client.post(f"{base}/predict", json={"inputs": inputs})
                assert answer.json() == expected.json()
        assert answer.headers["x-compute-characters"] == "10"

    @pytest.mark.parametrize("inputs", [[["a"], []], [[]], ["a", "b", "c"], [["a", "b", "c"]], [["a"], ["b", "c"]]])
    def test_refuses_other_lists(self, labels: RunningServer, inputs: object) -> None:
        with labels.client() as client:
            answer = client.post("/predict", json={"inputs": inputs})
        assert answer.status_code == 400
        assert "[[text], [text]]" in answer.json()["error"]

    @pytest.mark.parametrize("inputs", ["a b", ["a b", "c"], [["a b"], ["d"]]])
    def test_returns_logits_if_they_are_asked_for(self, labels: RunningServer, inputs: object) -> None:
        body = {"inputs": inputs, "raw_scores": True}
        with httpx.Client(base_url=self.target, trust_env=False) as toolkit, labels.client() as client:
            answer, expected = client.post("/predict", json=body), toolkit.post("/predict", json=body)
            assert answer.json() == expected.json()
            assert client.post("/predict", json={"inputs": inputs}).json() != expected.json()


class TestInfo:
    def test_names_the_model_and_space_of_the_default_chain(self, client: httpx.Client, base: str) -> None:
        with Gateway(targets=["hash:64"]) as gateway:
            space = gateway.space
        answer = client.get(f"{base}/info")
        found = answer.json()
        assert found["served_model_name"] == "docs"
        assert found["space"] == space.to_dict()
        assert found["space_id"] == answer.headers["x-hf-gateway-space"] == space.id
        assert (found["model_dtype"], found["model_type"]) == ("float32", {"embedding": {"pooling": "sum"}})
        assert found["max_client_batch_size"] == 2048

    @pytest.mark.parametrize(
        ("chain", "kind"),
        [("other", "embedding"), ("words", "embedding"), ("order", "reranker"), ("docs:latest", "embedding")],
    )
    def test_below_a_chain_it_is_that_chain(self, client: httpx.Client, chain: str, kind: str) -> None:
        found = client.get(f"/tei/{chain}/info").json()
        assert found["served_model_name"] == chain.removesuffix(":latest")
        assert list(found["model_type"]) == [kind]

    def test_openais_form_serves_that_chain_too_whatever_the_body_names(self, client: httpx.Client) -> None:
        answer = client.post("/tei/other/v1/embeddings", json={"input": "x", "model": "docs"})
        assert len(answer.json()["data"][0]["embedding"]) == 32

    def test_an_openai_target_ranks_below_a_chain(self, server: RunningServer) -> None:
        with RerankGateway(targets=["lexical"]) as here:
            expected = [hit.index for hit in here.rerank("exception", TEXTS)]
        with RerankGateway("order", [f"openai:{server.url}/tei/order/v1"]) as there:
            assert [hit.index for hit in there.rerank("exception", TEXTS)] == expected

    def test_images_are_made_below_a_chain(self) -> None:
        with (
            FakeOpenAI(models=None) as fake,
            gateway_server(DRAWING.format(fake.url)) as running,
            running.client() as asking,
        ):
            answer = asking.post("/tei/draw/v1/images/generations", json={"prompt": "a cat", "model": "docs"})
        assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/draw"
        assert len(answer.json()["data"]) == 1

    def test_a_chain_is_found_by_its_models_id(self, client: httpx.Client) -> None:
        config = '[chains.a]\nmodel = "owner/name"\ntargets = ["openai:http://127.0.0.1:9"]\n' + CHAINS
        with gateway_server(config) as running, running.client() as asking:
            assert asking.get("/tei/owner/name/info").json()["served_model_name"] == "a"

    def test_an_unknown_chain_is_404_with_the_nearest_names(self, client: httpx.Client) -> None:
        for answer in (client.get("/tei/otter/info"), client.post("/tei/dics/embed", json={"inputs": "x"})):
            assert answer.status_code == 404
            assert "did you mean" in answer.json()["error"]

    def test_a_chain_of_another_task_is_404(self, client: httpx.Client) -> None:
        assert client.post("/tei/order/embed", json={"inputs": "x"}).status_code == 404

    def test_several_chains_without_a_default_have_to_be_named(self) -> None:
        config = '[chains.a]\ntargets = ["hash:8"]\n[chains.b]\ntargets = ["hash:16"]\n'
        with gateway_server(config) as running, running.client() as client:
            answer = client.get("/info")
            assert answer.status_code == 404
            assert "several chains for embeddings: a, b" in answer.json()["error"]
            assert client.get("/tei/b/info").json()["space"]["dimension"] == 16

    @pytest.mark.parametrize("base", ["", "/tei/docs"])
    @pytest.mark.parametrize("path", ["/tokenize", "/decode", "/similarity", "/embed_all"])
    @pytest.mark.parametrize("inputs", ["x", {"source_sentence": "x", "sentences": ["y"]}])
    def test_what_is_left_out_answers_404_in_teis_form(
        self, client: httpx.Client, base: str, path: str, inputs: Any
    ) -> None:
        answer = client.post(f"{base}{path}", json={"inputs": inputs})
        found = answer.json()
        # What there is instead may follow.
        assert found.pop("error").startswith(f"there is no route '{base}{path}'")
        assert (answer.status_code, found) == (404, {"error_type": "Validation", "code": "not_found"})

    @pytest.mark.parametrize("path", ["responses", "messages", "audio/speech"])
    @pytest.mark.parametrize("base", ["/tei/docs", "/tei/sentence-transformers/all-MiniLM-L6-v2", "/models/docs"])
    def test_what_is_left_out_of_openais_below_a_chain_answers_404_in_openais_form(
        self, client: httpx.Client, base: str, path: str
    ) -> None:
        answer = client.post(f"{base}/v1/{path}", json={"model": "docs", "input": "x"})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"there is no route '{base}/v1/{path}'"
