"""The guard of sparse vectors: those of another model never get out."""

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.spaces.fingerprint import CANARIES, Store
from tests.servers.loopback import Reply
from tests.servers.tei import FakeTEI, word_weights
from tests.support.sparse import FORMS, MODEL, PATH, Make, SparseCall, chain, splade

Sparse = Callable[[list[str]], Any]


def other_model(texts: list[str]) -> Any:
    return word_weights([text[::-1] for text in texts])


def other_weights(texts: list[str]) -> Any:
    return [
        [{"index": entry["index"], "value": entry["value"] * (1 + entry["index"] % 3)} for entry in row]
        for row in word_weights(texts)
    ]


def in_float16(texts: list[str]) -> Any:
    return [
        [{"index": entry["index"], "value": entry["value"] * (1 + (entry["index"] % 5 - 2) / 4000)} for entry in row]
        for row in word_weights(texts)
    ]


def only_ascii(texts: list[str]) -> Any:
    return [row if text.isascii() else [] for text, row in zip(texts, word_weights(texts), strict=True)]


def shuffled(texts: list[str]) -> Any:
    return word_weights([*texts[1:], *texts[:1]])


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    return partial(SparseCall, request.param, check_space=True)


@pytest.fixture
def primary() -> Iterator[FakeTEI]:
    with splade() as server:
        yield server


@pytest.mark.parametrize("wrong", [other_model, other_weights, shuffled])
def test_a_server_that_answers_with_other_vectors_is_quarantined(make: Make, primary: FakeTEI, wrong: Sparse) -> None:
    with splade(sparse=wrong) as backup:
        call = make(chain(primary, backup))
        call.served_by()
        primary.always(Reply(401), path=PATH)
        refused = call.refused(errors.AllTargetsFailed)
        assert [type(each).__name__ for each in refused.errors] == ["AuthenticationFailed", "Quarantined"]
        status = call.gateway.status()[1]
        assert (status.space_check, status.ready) == ("quarantined", False)
        before = backup.count(PATH)
        call.refused(errors.AllTargetsFailed)
        assert backup.count(PATH) == before


def test_small_differences_of_computing_are_the_same_space(make: Make, primary: FakeTEI) -> None:
    with splade(sparse=in_float16) as backup:
        call = make(chain(primary, backup))
        call.served_by()
        primary.always(Reply(401), path=PATH)
        assert call.embed(["one"]).served_by == (f"tei:{backup.url}",)
        assert 0.999 < (call.gateway.status()[1].worst_cosine or 0) < 1


def test_texts_without_entries_are_the_same_on_both_sides_and_differ_from_others(make: Make) -> None:
    with splade(sparse=only_ascii) as first, splade(sparse=only_ascii) as same, splade() as other:
        call = make(chain(first, same, other))
        call.served_by()
        first.always(Reply(401), path=PATH)
        assert call.embed(["one"]).served_by == (f"tei:{same.url}",)
        same.always(Reply(401), path=PATH)
        call.refused(errors.AllTargetsFailed)
        assert call.gateway.status()[2].space_check == "quarantined"


def test_a_model_that_is_replaced_behind_its_address_is_noticed_in_the_next_answer(
    make: Make, primary: FakeTEI
) -> None:
    call = make(chain(primary))
    call.served_by()
    primary.sparse = other_model
    assert "the model behind it has changed" in str(call.refused(errors.Quarantined))


def test_the_first_server_is_remembered_by_later_chains(make: Make, primary: FakeTEI) -> None:
    make(chain(primary)).served_by()
    with splade(sparse=other_model) as other:
        make(chain(other)).refused(errors.Quarantined)
        assert other.count(PATH) == 1  # the canaries; queries have no prompt of their own


def test_the_canaries_are_no_texts_of_the_caller(make: Make, primary: FakeTEI) -> None:
    call = make(chain(primary))
    assert call.served_by(["a", "b"]) == call.served_by(["c"]) == (f"tei:{primary.url}",)
    sent = [request.json["inputs"] for request in primary.requests if request.path == PATH]
    assert sent[0][:1] == [CANARIES[0]]
    assert sent[-1][0] == "c"
    assert len(sent[-1]) == 2
    assert call.embed(["c"]).usage.input_tokens is not None


def test_batches_leave_room_for_the_canary(make: Make) -> None:
    texts = [f"text {number}" for number in range(50)]
    with splade(max_client_batch_size=8) as server:
        make(chain(server)).served_by(texts)
        assert max(len(request.json["inputs"]) for request in server.requests if request.path == PATH) == 8


def test_sparse_and_dense_vectors_of_one_model_are_two_spaces(primary: FakeTEI) -> None:
    sparse = SparseCall("sync", chain(primary), check_space=True)
    sparse.served_by()
    with FakeTEI(model_id=MODEL, pooling="cls") as server, Gateway(MODEL, chain(server), check_space=True) as dense:
        dense.embed(["one"])
        assert sparse.gateway.space.differences(dense.space.merged(type(dense.space)(MODEL, pooling="cls")))
        paths = {Store().path(gateway.space) for gateway in (dense, sparse.gateway)}
        assert len(paths) == 2
        assert all(path.exists() for path in paths)


def test_the_first_vector_decides_between_two_spaces(make: Make, primary: FakeTEI) -> None:
    call = make([*chain(primary), "bm25"], on_space_change="separate")
    assert call.gateway.final_space is None
    call.served_by()
    assert call.gateway.space.model == MODEL
    primary.always(Reply(401), path=PATH)
    refused = call.refused(errors.AllTargetsFailed)
    assert "pinned to test/splade" in str(refused)
    copied = pickle.loads(pickle.dumps(call.gateway))
    assert copied.space_binding.pinned == call.gateway.space
    with pytest.raises(errors.AllTargetsFailed, match="pinned to test/splade"):
        copied.embed(["one"])


def test_a_chain_of_bm25_first_never_uses_the_model(make: Make, primary: FakeTEI) -> None:
    call = make(["bm25", *chain(primary)], on_space_change="separate")
    call.embed(["one"])
    assert call.gateway.space.model == "hf-gateway/bm25-v1"
    assert primary.count(PATH) == 0


def test_a_copy_of_another_space_is_refused(primary: FakeTEI) -> None:
    first, other = SparseCall("sync", ["bm25"]).gateway, SparseCall("sync", chain(primary)).gateway
    first.embed(["x"])
    with pytest.raises(errors.SpaceMismatch, match="bm25-v1"):
        other.bind_space(first.space_binding)


def test_measuring_stores_nothing(primary: FakeTEI) -> None:
    gateway = SparseCall("sync", chain(primary), check_space=True).gateway
    (rows,) = gateway.measure()
    assert not isinstance(rows, errors.GatewayError)
    assert Store().load(gateway.space) is None
    served = gateway.served_space(gateway.candidates[0])
    assert served is not None
    assert served.pooling == "splade"
