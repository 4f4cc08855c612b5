"""Several servers behind one address, and not all of them with the same model: what of the wrong one gets out, and when."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.spaces.fingerprint import CANARIES
from hf_gateway.spaces.request_canaries import FULL_REQUESTS, QUERY_TEXTS
from tests.servers import unit_vectors
from tests.servers.loopback import Recorded, Reply, Stream
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core.stores import InMemoryByteStore
    from llama_index.core.storage.kvstore import SimpleKVStore

    from langchain_hf_gateway import HFGatewayEmbeddings, cache_backed
    from llamaindex_hf_gateway import HFGatewayEmbedding


MODEL = "test/embedder"
PATH = "/v1/embeddings"
PROMPTS = {"query_prompt": "query: ", "document_prompt": "passage: "}


def wrong(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts])


class Balancer(FakeOpenAI):
    """A load balancer: `pick` names the model that answers the n-th request for vectors, "right" or "wrong"."""

    def __init__(self, pick: Callable[[int], str], *, headers: bool = False, **settings: Any) -> None:
        super().__init__(models=None, **settings)
        self.pick = pick
        self.headers = headers
        self.picked: list[str] = []

    def handle(self, request: Recorded) -> Reply | Stream:
        if request.path != PATH:
            return super().handle(request)
        name = self.pick(len(self.picked))
        self.picked.append(name)
        self.embed = unit_vectors if name == "right" else wrong
        reply = super().handle(request)
        if self.headers and isinstance(reply, Reply):
            return replace(reply, headers={**reply.headers, "x-served-by": name})
        return reply


@pytest.fixture
def balancer() -> Iterator[Callable[..., Balancer]]:
    servers: list[Balancer] = []

    def make(pick: Callable[[int], str], **settings: Any) -> Balancer:
        servers.append(Balancer(pick, **settings))
        return servers[-1].__enter__()

    yield make
    for server in servers:
        server.__exit__(None, None, None)


def gateway(server: FakeOpenAI, **settings: Any) -> Gateway:
    return Gateway(MODEL, [f"openai:{server.url}"], **{"check_space": True, "max_retries": 0, **settings})


def after(count: int) -> Callable[[int], str]:
    """The right one answers so many requests, and then the wrong one."""
    return lambda number: "right" if number < count else "wrong"


FORMS: dict[str, Callable[[Gateway, list[str]], Any]] = {
    "embed": lambda it, texts: it.embed(texts).vectors.tolist(),
    "aembed": lambda it, texts: asyncio.run(it.aembed(texts)).vectors.tolist(),
    "embed_stream": lambda it, texts: list(it.embed_stream(texts)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 32, 300])
def test_not_one_document_gets_the_vector_of_a_server_that_the_check_did_not_meet(
    balancer: Callable[..., Balancer], form: str, count: int
) -> None:
    server = balancer(after(2))  # which are the check
    with pytest.raises(errors.Quarantined, match="not all servers behind its address have the same one"):
        FORMS[form](gateway(server), [f"text {number}" for number in range(count)])


@pytest.mark.parametrize("seed", range(12))
def test_documents_over_servers_taken_by_chance_are_of_one_model(balancer: Callable[..., Balancer], seed: int) -> None:
    dice = random.Random(seed)
    server = balancer(lambda _: dice.choice(("right", "wrong")))
    chain, given = gateway(server), []
    for number in range(40):
        texts = [f"text {number}.{place}" for place in range(dice.randint(1, 5))]
        try:
            given += zip(texts, chain.embed(texts).vectors.tolist(), strict=True)
        except errors.GatewayError:
            continue
    models = {"right" if row == unit_vectors([text])[0] else "wrong" for text, row in given}
    assert len(models) <= 1


@pytest.mark.parametrize("seed", range(12))
def test_both_roles_are_held_to_one_server(balancer: Callable[..., Balancer], seed: int) -> None:
    dice = random.Random(seed)
    server = balancer(lambda _: dice.choice(("right", "wrong")))
    chain, models = gateway(server, **PROMPTS), set()
    for number in range(6):
        role: Any = ("document", "query")[number % 2]
        try:
            row = chain.embed([f"text {number}"], role=role).vectors.tolist()[0]
        except errors.GatewayError:
            continue
        sent = PROMPTS[f"{role}_prompt"] + f"text {number}"
        models.add("right" if row == unit_vectors([sent])[0] else "wrong")
        if number == 1:
            break  # one request of each role with a canary in it; later queries are held to the bound below
    assert len(models) <= 1


def test_queries_are_held_to_a_canary_every_so_many_texts(balancer: Callable[..., Balancer]) -> None:
    server = balancer(after(3))  # the check, and the first query, which has a canary
    chain, wrong_ones = gateway(server), 0
    chain.embed(["one"], role="query")
    for number in range(1000):
        try:
            chain.embed([f"text {number}"], role="query")
        except errors.Quarantined:
            break
        wrong_ones += 1
    assert wrong_ones == QUERY_TEXTS


def test_queries_that_a_frameworks_cache_keeps_are_proven_one_by_one(balancer: Callable[..., Balancer]) -> None:
    stores = {"llamaindex": SimpleKVStore(), "langchain": InMemoryByteStore()}
    for door, store in stores.items():
        server = balancer(after(3))
        given: dict[str, Any] = {"targets": [f"openai:{server.url}"], "check_space": True, "max_retries": 0}
        ask: Callable[[str], Any]
        if door == "llamaindex":
            ask = HFGatewayEmbedding(model_name=f"{MODEL}-1", embeddings_cache=store, **given).get_query_embedding
        else:
            embeddings = HFGatewayEmbeddings(model=f"{MODEL}-2", **given)
            ask = CacheBackedEmbeddings.from_bytes_store(embeddings, **cache_backed(embeddings, store)).embed_query
        ask("one")
        with pytest.raises(errors.Quarantined):
            ask("two")


def test_a_text_too_large_for_a_server_does_not_end_the_checks(primary: FakeOpenAI) -> None:
    chain, handle = gateway(primary), primary.handle
    chain.embed(["one"])

    def refusing(request: Recorded) -> Reply | Stream:
        too_large = request.path == PATH and len(request.body) > 4000
        return Reply(413, "Payload Too Large") if too_large else handle(request)

    primary.handle = refusing  # type: ignore[method-assign]
    with pytest.raises(errors.ContextOverflow):
        chain.embed(["x" * 5000])
    chain.embed(["x" * 3900])  # which there is room for, and none for a canary
    primary.embed = wrong
    with pytest.raises(errors.Quarantined):
        chain.embed(["two"])


def test_a_server_that_says_it_is_another_one_proves_itself_at_once(balancer: Callable[..., Balancer]) -> None:
    server = balancer(after(3), headers=True)
    chain = gateway(server)
    chain.embed(["one"], role="query")
    with pytest.raises(errors.Quarantined):
        chain.embed(["two"], role="query")


def test_a_header_that_is_another_one_each_time_does_not_double_the_requests_for_ever(
    balancer: Callable[..., Balancer],
) -> None:
    server = balancer(lambda _: "right", headers=True)
    chain = gateway(server)
    handle = server.handle

    def numbered(request: Recorded) -> Reply | Stream:
        reply = handle(request)
        if isinstance(reply, Reply):
            return replace(reply, headers={**reply.headers, "x-served-by": str(len(server.picked))})
        return reply

    server.handle = numbered  # type: ignore[method-assign]
    for number in range(300):
        chain.embed([f"text {number}"], role="query")
    assert len(server.picked) < 300 + 80


class TestWhatItCosts:
    def sizes(self, server: FakeOpenAI) -> list[int]:
        return [len(request.json["input"]) for request in server.requests if request.path == PATH]

    def test_a_call_of_32_documents_is_one_request_of_33_texts(self, primary: FakeOpenAI) -> None:
        chain = gateway(primary)
        for _ in range(3):
            chain.embed([f"text {number}" for number in range(32)])
        assert self.sizes(primary)[2:] == [33, 33, 33]

    def test_queries_have_one_in_32(self, primary: FakeOpenAI) -> None:
        chain = gateway(primary)
        for number in range(64):
            chain.embed([f"text {number}"], role="query")
        assert self.sizes(primary)[2:] == [2, *[1] * 32, 2, *[1] * 30]

    def test_a_call_as_large_as_the_server_takes_is_still_one_request(self) -> None:
        with FakeOpenAI(models=None, max_inputs=32) as server:
            chain = Gateway(MODEL, [_target(server, 32)], check_space=True)
            for _ in range(FULL_REQUESTS):
                chain.embed([f"text {number}" for number in range(32)])
            # All but the last, which is cut so that it proves the server.
            assert self.sizes(server)[2:] == [*[32] * (FULL_REQUESTS - 1), 32, 2]

    @pytest.mark.parametrize(("known", "requests"), [(True, 10), (False, 11)])  # 255 texts and 55 before it is known
    def test_a_long_call_is_cut_so_that_each_request_has_room(self, known: bool, requests: int) -> None:
        with FakeOpenAI(models=None, max_inputs=32) as server:
            chain = Gateway(MODEL, [_target(server, 32 if known else None)], check_space=True)
            vectors = chain.embed([f"text {number}" for number in range(310)]).vectors
            assert vectors.tolist() == unit_vectors([f"text {number}" for number in range(310)])
            sizes = [size for size in self.sizes(server)[2:] if size <= 32]
            assert (len(sizes), max(sizes), sum(sizes)) == (requests, 32, 310 + requests)

    def test_a_server_that_takes_one_text_at_once_is_asked_once_a_text(self) -> None:
        with FakeOpenAI(models=None, max_inputs=1) as server:
            chain = Gateway(MODEL, [_target(server, None)], check_space=True)
            for number in range(5):
                assert chain.embed([f"text {number}"]).vectors.tolist() == unit_vectors([f"text {number}"])
            assert self.sizes(server)[-4:] == [1, 1, 1, 1]

    def test_without_the_check_nothing_is_added(self, primary: FakeOpenAI) -> None:
        for settings in ({"check_space": False}, {"canary_every": 0}):
            before = primary.count(PATH)
            chain = gateway(primary, **settings)
            chain.embed(["one", "two"])
            assert self.sizes(primary)[before:][-1] == 2

    def test_a_text_that_is_too_long_is_named_by_its_place_among_the_callers(self) -> None:
        with FakeOpenAI(models=None, max_input_length=50) as server:
            chain = gateway(server)
            with pytest.raises(errors.ContextOverflow) as caught:
                chain.embed(["short", "word " * 200])
            assert CANARIES[1] not in str(caught.value)


def _target(server: FakeOpenAI, most: int | None) -> Any:
    options = {"max_texts": most} if most else {}
    return {"kind": "openai", "url": server.url, "options": options}
