"""Sparse embeddings: the vectors of each target, batches, bad input, what watchers are told."""

import json
import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from hf_gateway import Gateway, SparseGateway, SparseVectors, Target, errors
from tests.servers.loopback import Reply, garbage, html
from tests.servers.tei import FakeTEI
from tests.support.sparse import FORMS, MODEL, PATH, Make, SparseCall, chain, splade, weights


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    return partial(SparseCall, request.param)


@pytest.fixture
def server() -> Iterator[FakeTEI]:
    with splade() as started:
        yield started


def sent(server: FakeTEI) -> list[list[str]]:
    return [request.json["inputs"] for request in server.requests if request.path == PATH]


def test_each_text_has_its_vector_at_its_place(make: Make, server: FakeTEI) -> None:
    result = make(chain(server)).embed(["b a a", "c", "d e f"])
    assert [vector.to_dict() for vector in result.vectors] == weights(["b a a", "c", "d e f"])
    assert all(vector.indices == sorted(vector.indices) for vector in result.vectors)
    assert result.served_by == (f"tei:{server.url}",)
    assert result.usage.input_tokens == 13
    assert result.space.pooling == "splade"


def test_a_query_gets_its_prompt(make: Make, server: FakeTEI) -> None:
    make(chain(server), query_prompt="query: ").embed(["x"], role="query")
    assert sent(server) == [["query: x"]]


def test_batches_keep_to_the_servers_number_of_texts_in_order(make: Make) -> None:
    texts = [f"text {number}" for number in range(70)]
    with splade(max_client_batch_size=16) as server:
        assert make(chain(server)).served_by(texts) == (f"tei:{server.url}",)
        assert [len(batch) for batch in sent(server)] == [16, 16, 16, 16, 6]


def test_batches_keep_to_the_bytes_of_a_body_in_order(make: Make) -> None:
    texts = [f"{number} " + "x" * 450_000 for number in range(9)]
    with splade(max_client_batch_size=64, max_input_length=10**6) as server:
        make(chain(server)).served_by(texts)
        batches = sent(server)
    assert [text for batch in batches for text in batch] == texts
    assert len(batches) == 3


def test_a_smaller_limit_than_the_server_reports_is_learnt(make: Make, server: FakeTEI) -> None:
    texts = [f"text {number}" for number in range(32)]
    server.fail(Reply(413, "Failed to buffer the request body: length limit exceeded"), path=PATH)
    make(chain(server)).served_by(texts)
    assert [len(batch) for batch in sent(server)] == [32, 16, 16]


# Bad input.


def test_an_empty_list_sends_nothing(make: Make, server: FakeTEI) -> None:
    result = make(chain(server)).embed([])
    assert (len(result.vectors), result.served_by, server.requests) == (0, (), [])


def test_duplicates_are_sent_once(make: Make, server: FakeTEI) -> None:
    make(chain(server)).served_by(["same", "other", "same", "same"])
    assert sent(server) == [["same", "other"]]


def test_ten_thousand_texts(server: FakeTEI) -> None:
    server.max_client_batch_size = 1000
    texts = [f"text number {number}" for number in range(10_000)]
    SparseCall("sync", chain(server)).served_by(texts)
    assert server.count(PATH) == 10


@pytest.mark.parametrize("texts", ["one string", ["ok", 3], ["ok", ""], ["ok", "  "], ["ok", "\ud800"], None], ids=repr)
def test_invalid_texts_are_refused_before_anything_is_sent(make: Make, server: FakeTEI, texts: Any) -> None:
    make(chain(server)).refused(errors.InvalidRequest, texts)
    assert server.requests == []


def test_an_unknown_role_is_refused(make: Make, server: FakeTEI) -> None:
    with pytest.raises(errors.InvalidRequest, match="passage"):
        make(chain(server)).embed(["x"], role="passage")


def test_a_text_that_is_too_long_is_an_error_unless_it_may_be_cut(make: Make) -> None:
    with splade(max_input_length=6) as server:
        long = " ".join(f"word{number}" for number in range(20))
        assert make(chain(server)).refused(errors.ContextOverflow, [long]).target == f"tei:{server.url}"
        cut = make(chain(server), truncate=True).embed([long]).vectors[0]
        assert cut.to_dict() == weights([" ".join(long.split()[:4])])[0]


def test_the_error_names_the_text_that_is_too_long_among_many(make: Make) -> None:
    texts = [f"text {number}" for number in range(50)]
    texts[41] = "word " * 20
    with splade(max_input_length=6) as server:
        error = make(chain(server)).refused(errors.ContextOverflow, ["text 0", *texts])
        assert error.place == 42
        assert "text 42 of 51" in str(error)


def entry(index: Any, value: Any) -> list[list[dict[str, Any]]]:
    return [[{"index": index, "value": value}], [{"index": 1, "value": 1.0}]]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Reply(200, entry(-1, 1.0)), "index -1"),
        (Reply(200, entry(2**32, 1.0)), "index 4294967296"),
        (Reply(200, entry(1.5, 1.0)), "index 1.5"),
        (Reply(200, entry(True, 1.0)), "index True"),
        (Reply(200, entry([], 1.0)), "index []"),
        (Reply(200, entry(1, None)), "value None"),
        (Reply(200, entry(1, "1")), "value '1'"),
        (Reply(200, entry(1, True)), "value True"),
        (Reply(200, entry(1, [1.0])), "value [1.0]"),
        (Reply(200, [None, None]), "vector 0"),
        (Reply(200, b'[[{"index":1,"value":NaN}],[]]'), ""),
        (Reply(200, b'[[{"index":1,"value":1e39}],[]]'), ""),
        (Reply(200, [[{"index": 1, "value": 1.0}, {"index": 1, "value": 2.0}], []]), "repeated"),
        (Reply(200, [[{"index": 1, "value": 1.0}]]), "1 vector for 2 texts"),
        (Reply(200, [[], [], []]), "3 vectors for 2 texts"),
        (Reply(200, {"vectors": []}), "list of sparse vectors"),
        (Reply(200, [{"index": 1, "value": 1.0}] * 2), "not a list of indexes"),
        (Reply(200, [[1.0, 2.0]] * 2), "index"),
        (html(200), "HTML"),
        (garbage(), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_answer_that_is_no_sparse_vector_is_the_servers_fault(
    make: Make, server: FakeTEI, answer: Any, words: str
) -> None:
    server.always(answer, path=PATH)
    assert words in str(make(chain(server)).refused(errors.BadResponse))
    assert server.count(PATH) == 1


def test_empty_vectors_for_several_texts_are_a_fault_and_for_one_text_are_not(make: Make) -> None:
    with splade(sparse=lambda texts: [[] for _ in texts]) as server:
        call = make(chain(server))
        assert len(call.embed(["..."]).vectors[0]) == 0
        call.refused(errors.BadResponse, ["one", "two", "three"])


def test_an_entry_beyond_the_declared_vocabulary_is_a_fault(make: Make) -> None:
    with splade(sparse=lambda texts: [[{"index": 50, "value": 1.0}] for _ in texts]) as server:
        space = {"model": MODEL, "dimension": 50}
        target = Target.of({"kind": "tei", "url": server.url, "space": space})
        assert "vocabulary of 50" in str(make([target]).refused(errors.BadResponse))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pooling": "mean"}, "mean pooling"),
        ({"model_type": "reranker"}, "reranker"),
    ],
)
def test_a_server_without_a_sparse_model_is_told_apart_before_texts_are_sent(
    make: Make, settings: dict[str, Any], words: str
) -> None:
    with splade(**settings) as server:
        error = make(chain(server)).refused(errors.ModelNotFound)
        assert words in str(error)
        assert server.count(PATH) == 0


def test_a_server_of_another_model_is_refused(make: Make) -> None:
    with splade(model_id="naver/splade-v3") as server:
        assert "naver/splade-v3" in str(make(chain(server)).refused(errors.SpaceMismatch))
        assert server.count(PATH) == 0


# The target without a model.


def test_bm25_weighs_words(make: Make) -> None:
    call = make(["bm25"])
    first, second, _ = call.embed(["try except try", "list", "..."]).vectors
    query = call.embed(["Try a LIST"], role="query").vectors[0]
    assert set(query.values) == {1.0}
    length = 1.2 * (0.25 + 0.75 * 3 / 256)
    assert query.dot(first) == pytest.approx(2 * 2.2 / (2 + length))
    assert query.dot(second) == pytest.approx(2.2 / (1 + 1.2 * (0.25 + 0.75 / 256)))
    assert call.embed(["..."]).vectors == SparseVectors.of([{}])


def test_bm25_takes_its_parameters_and_each_set_of_them_is_a_space(make: Make) -> None:
    plain = make(["bm25"])
    other = make([Target("bm25", options={"k1": 2, "b": 0.0, "average_terms": 50})])
    assert other.embed(["x x"]).vectors[0].values == [pytest.approx(2 * 3 / 4)]
    assert plain.gateway.space.differences(other.gateway.space)
    with pytest.raises(errors.SpaceMismatch, match="k1=2"):
        make(["bm25", Target("bm25", options={"k1": 2.0})])


@pytest.mark.parametrize(
    "options", [{"k1": -1}, {"b": 2}, {"k1": "1"}, {"b": True}, {"average_terms": 0}, {"kl": 1}], ids=repr
)
def test_bm25_refuses_other_parameters(options: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError):
        SparseGateway(targets=[Target("bm25", options=options)])


def test_bm25_has_no_argument() -> None:
    with pytest.raises(errors.ConfigError, match="write 'bm25'"):
        SparseGateway(targets=["bm25:512"])


def test_bm25_reads_a_text_of_any_length_only_if_it_may_be_cut(make: Make) -> None:
    texts = ["word", "x " * 80_000]
    assert make(["bm25"]).refused(errors.ContextOverflow, texts).place == 1
    assert len(make(["bm25"], truncate=True).embed(texts).vectors) == 2


def test_bm25_and_a_model_are_not_mixed(make: Make, server: FakeTEI) -> None:
    with pytest.raises(errors.SpaceMismatch, match="bm25-v1"):
        make([*chain(server), "bm25"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model": "a/splade"}, {"model": "b/splade"}),
        ({"space": {"model": MODEL, "dimension": 30522}}, {"space": {"model": MODEL, "dimension": 28996}}),
        ({"space": {"model": MODEL, "pooling": "splade"}}, {"space": {"model": MODEL, "pooling": "splade-sum"}}),
    ],
    ids=["models", "vocabularies", "poolings"],
)
def test_targets_of_two_spaces_are_refused_when_the_chain_is_built(one: dict[str, Any], other: dict[str, Any]) -> None:
    targets = [Target.of({"kind": "tei", "url": "http://127.0.0.1:9", **fields}) for fields in (one, other)]
    with pytest.raises(errors.SpaceMismatch, match="do not share one vector space"):
        SparseGateway(MODEL, targets)
    assert SparseGateway(MODEL, targets, on_space_change="separate").final_space is None


# The gateway.


def test_the_factory_builds_it_and_another_tasks_targets_are_refused() -> None:
    assert isinstance(Gateway(targets=["bm25"], task="sparse"), SparseGateway)
    with pytest.raises(errors.ConfigError, match="does not support sparse"):
        SparseGateway(targets=["hash"])
    with pytest.raises(errors.ConfigError, match="does not support embedding"):
        Gateway(targets=["bm25"])


def test_the_environment_names_model_and_targets(monkeypatch: pytest.MonkeyPatch, server: FakeTEI) -> None:
    monkeypatch.setenv("HF_GATEWAY_SPARSE_MODEL", MODEL)
    monkeypatch.setenv("HF_GATEWAY_SPARSE_TARGETS", f"tei:{server.url}")
    with SparseGateway() as gateway:
        assert gateway.embed(["x"]).served_by == (f"tei:{server.url}",)
        assert gateway.model == MODEL


def test_a_pickle_is_bound_to_the_same_space(make: Make) -> None:
    call = make(["bm25"])
    call.embed(["x"])
    copied = pickle.loads(pickle.dumps(call.gateway))
    assert copied.space_binding.pinned == call.gateway.space
    assert copied.embed(["x"]).vectors == call.embed(["x"]).vectors


def test_check_and_status_name_the_server_and_its_limits(server: FakeTEI) -> None:
    with SparseGateway(MODEL, [*chain(server)]) as gateway:
        (check,) = gateway.check()
        assert check.answers
        assert check.report.serves == [MODEL]
        assert "32 texts at once" in check.report.detail
        assert gateway.status()[0].ready
        assert gateway.status()[0].space_check == "unchecked"
    assert server.count(PATH) == 0


def test_observers_see_the_result(make: Make, server: FakeTEI) -> None:
    seen: list[Any] = []
    call = make(chain(server))
    call.gateway.observe(seen.append)
    result = call.embed(["x"])
    assert seen == [result]
    assert "SparseVectors(1, 1 entries)" in repr(result)
    assert json.loads(json.dumps(result.vectors[0].to_dict())) == {
        str(index): value for index, value in weights(["x"])[0].items()
    }
