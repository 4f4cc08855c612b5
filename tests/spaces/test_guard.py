"""The guard: no vector of another space gets out, measured rather than believed."""

import asyncio
import dataclasses
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, VectorSpace, errors
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, Fingerprint, Store, compare
from tests.servers import normalized, unit_vectors
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI

MODEL = "test/embedder"
PATH = "/v1/embeddings"
Embed = Callable[[list[str]], list[list[float]]]


def right(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors(texts)


def other_model(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts])


def unnormalised(texts: Sequence[str]) -> list[list[float]]:
    return [[value * (2 + len(text) % 7) for value in row] for text, row in zip(texts, right(texts), strict=True)]


def quantised(texts: Sequence[str]) -> list[list[float]]:
    return [normalized([round(value * 12) / 12 for value in row]) for row in right(texts)]


def shuffled(texts: Sequence[str]) -> list[list[float]]:
    return right([*texts[1:], *texts[:1]])


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def call(gateway: Gateway, texts: list[str], **how: Any) -> Any:
        return asyncio.run(gateway.aembed(texts, **how)) if request.param == "async" else gateway.embed(texts, **how)

    return call


@pytest.fixture
def store() -> Store:
    return Store()


def guarded(*targets: Any, **settings: Any) -> Gateway:
    return Gateway(
        settings.pop("model", MODEL),
        [f"openai:{each.url}" if isinstance(each, FakeOpenAI) else each for each in targets],
        **{"check_space": True, **settings},
    )


def taught(embed_with: Embed) -> None:
    """Have a first server make the space's fingerprint, as an earlier process would have."""
    with FakeOpenAI(models=None, embed=embed_with) as server:
        guarded(server).embed(["hello"])


def test_the_first_server_that_answers_makes_the_fingerprint(
    primary: FakeOpenAI, embed: Callable[..., Any], store: Store
) -> None:
    gateway = guarded(primary)
    assert embed(gateway, ["one"]).vectors.tolist() == unit_vectors(["one"])
    kept = store.load(gateway.space)
    assert kept is not None
    assert (kept.authority, kept.source) == ("server", f"openai:{primary.url}")
    assert len(kept.rows["document"]) == len(CANARIES) == 8


def test_the_check_is_one_small_batch_once_a_process_and_target(primary: FakeOpenAI, embed: Callable[..., Any]) -> None:
    gateway = guarded(primary)
    for _ in range(3):
        embed(gateway, ["one"])
    sizes = [len(request.json["input"]) for request in primary.requests]
    # The short canaries; for the first server of a space one by itself, which tells whether its rows are in order; the calls,
    # each with a canary behind its text.
    assert sizes == [7, 1, 2, 2, 2]
    del primary.requests[:]
    embed(guarded(primary), ["one"])
    assert [len(request.json["input"]) for request in primary.requests] == [7, 2]


def test_a_first_server_whose_rows_are_out_of_order_makes_no_fingerprint(
    primary: FakeOpenAI, backup: FakeOpenAI, embed: Callable[..., Any]
) -> None:
    primary.embed = shuffled
    result = embed(guarded(primary, backup), ["one", "two"])
    assert result.vectors.tolist() == unit_vectors(["one", "two"])
    assert "in another order than its texts" in (result.attempts[0].error or "")


def test_where_nothing_can_be_kept_the_guard_holds_for_the_process(
    primary: FakeOpenAI, backup: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "a-file"))
    backup.embed = other_model
    gateway = guarded(primary, backup)
    gateway.embed(["one"])
    primary.always(Reply(401))
    with pytest.raises(errors.AllTargetsFailed, match="another model"):
        gateway.embed(["two"])
    with pytest.raises(errors.Quarantined, match="another model"):
        guarded(backup).embed(["another chain of this process"])


def test_the_long_canary_goes_by_itself_where_texts_may_be_cut(primary: FakeOpenAI) -> None:
    guarded(primary, truncate=True).embed(["one"])
    # The long one has the first canary beside it, which must come back as it did a moment ago.
    assert [len(request.json["input"]) for request in primary.requests if request.body] == [7, 2, 1, 2]


WRONG: dict[str, tuple[Embed, str]] = {
    "another model of the same dimension": (other_model, "another model"),
    "unnormalised": (unnormalised, "without normalisation"),
    "quantised": (quantised, "quantised"),
    "rows in another order": (shuffled, "another order"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_target_of_another_space_is_quarantined_and_the_next_one_serves(
    primary: FakeOpenAI, backup: FakeOpenAI, embed: Callable[..., Any], fault: str
) -> None:
    taught(right)
    primary.embed, cause = WRONG[fault]
    gateway = guarded(primary, backup)
    result = embed(gateway, ["one", "two"])
    assert result.vectors.tolist() == unit_vectors(["one", "two"])
    assert result.served_by == (f"openai:{backup.url}",)
    assert cause in (result.attempts[0].error or "")
    status = gateway.status()[0]
    assert not status.ready
    assert "verify --accept" in (status.reason or "")
    before = primary.count(PATH)
    embed(gateway, ["three"])
    assert primary.count(PATH) == before


@pytest.mark.parametrize("fault", WRONG)
def test_alone_it_is_an_error_that_says_whom_it_differs_from_and_what_to_do(
    primary: FakeOpenAI, embed: Callable[..., Any], fault: str
) -> None:
    taught(right)
    primary.embed, cause = WRONG[fault]
    with pytest.raises(errors.SpaceMismatch) as caught:
        embed(guarded(primary), ["one"])
    for said in (cause, "the first that answered (measured 20", "`hf-gateway verify --accept openai:"):
        assert said in str(caught.value)


def test_without_the_check_the_wrong_vectors_get_out(primary: FakeOpenAI) -> None:
    taught(right)
    primary.embed = other_model
    assert guarded(primary, check_space=False).embed(["one"]).vectors.tolist() == other_model(["one"])


def test_a_server_that_lost_the_query_prompt_is_told_so(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    prompts = {"query_prompt": "query: ", "document_prompt": ""}
    guarded(primary, **prompts).embed(["hello"])
    backup.embed = lambda texts: right([text.removeprefix("query: ") for text in texts])
    with pytest.raises(errors.Quarantined, match="without the query prompt"):
        guarded(backup, **prompts).embed(["hello"])


def test_long_texts_cut_elsewhere_count_only_where_cutting_is_allowed(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    backup.embed = lambda texts: right([text[:400] for text in texts])
    guarded(primary).embed(["hello"])
    guarded(backup).embed(["hello"])
    guarded(primary, truncate=True).embed(["hello"])
    with pytest.raises(errors.Quarantined, match="cut at another place"):
        guarded(backup, truncate=True).embed(["hello"])


def test_a_server_that_refuses_the_long_text_is_measured_by_the_others(primary: FakeOpenAI, store: Store) -> None:
    with FakeOpenAI(models=None, max_input_length=100) as strict:
        gateway = guarded(strict)
        assert gateway.embed(["one"]).vectors.tolist() == unit_vectors(["one"])
        kept = store.load(gateway.space)
        assert kept is not None
        assert kept.rows["document"][LONG_CANARIES] is None
        guarded(primary).embed(["one"])


@pytest.mark.parametrize("strict_first", [False, True])
def test_where_texts_may_be_cut_one_that_refuses_a_long_text_is_another_space(
    primary: FakeOpenAI, strict_first: bool, embed: Callable[..., Any]
) -> None:
    with FakeOpenAI(models=None, max_input_length=100) as strict:
        first, second = (strict, primary) if strict_first else (primary, strict)
        gateways = [Gateway(MODEL, [_quiet(each)], check_space=True, truncate=True) for each in (first, second)]
        embed(gateways[0], ["one"])
        with pytest.raises(errors.Quarantined, match="one refuses a long text and the other cuts it"):
            embed(gateways[1], ["one"])


def test_two_servers_that_both_refuse_a_long_text_are_of_one_space() -> None:
    with FakeOpenAI(models=None, max_input_length=100) as one, FakeOpenAI(models=None, max_input_length=100) as two:
        for each in (one, two):
            Gateway(MODEL, [_quiet(each)], check_space=True, truncate=True).embed(["one"])


def test_a_fingerprint_without_a_cut_says_nothing_of_where_texts_are_cut(primary: FakeOpenAI) -> None:
    guarded(primary).embed(["one"])
    with FakeOpenAI(models=None, max_input_length=100) as strict:
        Gateway(MODEL, [_quiet(strict)], check_space=True, truncate=True).embed(["one"])
        with pytest.raises(errors.Quarantined, match="refuses a long text"):
            Gateway(MODEL, [_quiet(primary)], check_space=True, truncate=True).embed(["one"])


def by_files(store: Store, space: VectorSpace) -> None:
    """Have a fingerprint be one of the model's own files, made without a cut."""
    kept = store.load(space)
    assert kept is not None
    store.replace(dataclasses.replace(kept, authority="files", source="local"))


def test_the_first_server_that_cuts_says_where_beside_a_fingerprint_of_files(
    primary: FakeOpenAI, backup: FakeOpenAI, store: Store, embed: Callable[..., Any]
) -> None:
    plain = guarded(primary)
    plain.embed(["one"])
    by_files(store, plain.space)
    backup.embed = lambda texts: right([text[:400] for text in texts])
    chain = guarded(primary, backup, truncate=True, max_retries=0)
    embed(chain, [CANARIES[LONG_CANARIES]])
    primary.always(Reply(500), path=PATH)
    with pytest.raises(errors.AllTargetsFailed, match="cut at another place"):
        embed(chain, [CANARIES[LONG_CANARIES]])
    with pytest.raises(errors.Quarantined, match="cut at another place"):
        embed(guarded(backup, truncate=True), ["one"])


def test_the_models_own_files_decide_where_texts_are_cut(store: Store) -> None:
    space = Gateway("hash-model", ["hash:384"], check_space=True).space
    by_hash = guarded("hash:384", model="hash-model", truncate=True)
    by_hash.embed(["one"])
    kept = store.load(space)
    assert kept is not None
    cut = {role: (*rows[:LONG_CANARIES], rows[0]) for role, rows in kept.rows.items()}  # as a server may have added it
    store.replace(dataclasses.replace(kept, rows=cut))
    guarded("hash:384", model="hash-model", truncate=True).embed(["one"])
    found = store.load(space)
    assert found is not None
    assert found.rows == kept.rows


def test_vectors_of_cut_texts_are_cached_once_it_is_known_where_they_are_cut(
    primary: FakeOpenAI, backup: FakeOpenAI, store: Store, tmp_path: Path
) -> None:
    cut: dict[str, Any] = {"truncate": True, "cache": tmp_path / "cache.sqlite"}
    backup.embed = lambda texts: right([text[:400] for text in texts])
    plain = guarded(primary)
    plain.embed(["one"])
    unmeasured = store.load(plain.space)
    assert unmeasured is not None
    guarded(primary, **cut).embed([CANARIES[LONG_CANARIES]])
    store.replace(unmeasured)  # a server of the same name, whose fingerprint a chain without a cut has made anew
    chain = guarded(backup, **cut)
    assert chain.embed([CANARIES[LONG_CANARIES]]).vectors.tolist() == right([CANARIES[LONG_CANARIES][:400]])
    assert chain.cache is not None
    assert chain.cache.counts.hits == 0


def test_a_fingerprint_that_cannot_be_completed_keeps_nobody_from_being_served(
    primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded(primary).embed(["one"])
    monkeypatch.setattr(Store, "replace", _read_only)
    assert guarded(primary, truncate=True).embed(["one"]).vectors.tolist() == right(["one"])


def _read_only(*_: Any) -> None:
    raise PermissionError(30, "Read-only file system")


def _quiet(server: FakeOpenAI) -> Target:
    """A server that does not list its models, and so does not say where it cuts."""
    server.always(Reply(404, {"detail": "Not Found"}), path="/v1/models")
    return Target("openai", url=server.url)


def test_a_server_that_takes_few_texts_at_once_is_measured_in_parts() -> None:
    with FakeOpenAI(models=None, max_inputs=3) as small:
        assert guarded(small).embed(["one"]).vectors.tolist() == unit_vectors(["one"])


def test_a_check_that_fails_for_another_reason_is_that_failure_and_is_tried_again(
    primary: FakeOpenAI, backup: FakeOpenAI, embed: Callable[..., Any]
) -> None:
    primary.fail(Reply(401))
    gateway = guarded(primary, backup)
    result = embed(gateway, ["one"])
    assert "AuthenticationFailed" in (result.attempts[0].error or "")
    assert embed(gateway, ["one"]).served_by == (f"openai:{primary.url}",)


def test_a_model_changed_behind_its_url_is_noticed_by_the_canary_that_rides_along(
    primary: FakeOpenAI, backup: FakeOpenAI, embed: Callable[..., Any]
) -> None:
    gateway = guarded(primary, backup, canary_every=5)
    for _ in range(4):
        embed(gateway, ["one"])
    primary.embed = other_model
    result = embed(gateway, ["one"])
    assert result.vectors.tolist() == unit_vectors(["one"])
    assert "the model behind it has changed" in (result.attempts[0].error or "")
    assert embed(gateway, ["two"]).vectors.tolist() == unit_vectors(["two"])


def test_the_tokens_of_a_canary_are_counted_and_0_switches_it_off(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    counting = guarded(primary, canary_every=3)
    tokens = [counting.embed(["one"], role="query").usage.input_tokens for _ in range(6)]
    # Counted: the check before the first vector, the canary within the first request, the seven after every third one.
    first, plain, third, again, same, sixth = (count or 0 for count in tokens)
    assert first > third == sixth > plain == again == same > 0
    never = guarded(backup, canary_every=0)
    for _ in range(10):
        never.embed(["one"])
    assert backup.count(PATH) == 11


def test_one_vector_for_different_texts_is_no_answer(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.embed = lambda texts: right(["the same"] * len(texts))
    result = guarded(primary, backup, check_space=False).embed(["one", "two", "three"])
    assert result.served_by == (f"openai:{backup.url}",)
    assert "one and the same vector" in (result.attempts[0].error or "")


@pytest.mark.parametrize(
    "texts", [("Paris", "paris", "PARIS"), ("foo bar", "foo  bar", "foo bar "), ("Uber", "über", "U\u0308ber")], ids=str
)
def test_one_vector_for_texts_that_a_model_may_take_for_the_same_is_an_answer(
    primary: FakeOpenAI, texts: tuple[str, ...]
) -> None:
    primary.embed = lambda texts: right(["the same"] * len(texts))
    served = guarded(primary, check_space=False).embed(texts)
    assert served.vectors.tolist() == unit_vectors(["the same"] * 3)


def test_texts_that_differ_in_what_was_cut_may_have_one_vector(primary: FakeOpenAI) -> None:
    primary.embed = lambda texts: right(["the same"] * len(texts))
    pages = [f"{'terms and conditions ' * 200} page {number}" for number in range(3)]
    assert len(guarded(primary, check_space=False, truncate=True).embed(pages).vectors) == 3


# on_space_change and the pin.


def separate(*targets: Any, **settings: Any) -> Gateway:
    return guarded(*targets, on_space_change="separate", **settings)


def test_targets_of_different_spaces_are_refused_unless_they_are_to_be_separate(primary: FakeOpenAI) -> None:
    with pytest.raises(errors.SpaceMismatch):
        guarded(primary, "hash")
    separate(primary, "hash")


def test_whoever_answers_first_fixes_the_space_for_the_chains_life(
    primary: FakeOpenAI, embed: Callable[..., Any]
) -> None:
    gateway = separate(primary, "hash:384")
    embed(gateway, ["one"])
    assert gateway.space.model == MODEL
    primary.always(Reply(401))
    with pytest.raises(errors.AllTargetsFailed) as caught:
        embed(gateway, ["two"])
    assert [type(error).__name__ for error in caught.value.errors] == ["AuthenticationFailed", "Quarantined"]


def test_a_chain_that_began_with_hash_stays_with_hash(primary: FakeOpenAI, embed: Callable[..., Any]) -> None:
    primary.fail(*[Reply(401)] * 2)
    gateway = separate(primary, "hash:384")
    first = embed(gateway, ["one"])
    assert first.served_by == ("hash:384",)
    assert gateway.space == first.space
    second = embed(gateway, ["two"])
    assert second.served_by == ("hash:384",)
    assert primary.count(PATH) == 1


async def test_answers_under_way_at_once_cannot_both_fix_the_space(primary: FakeOpenAI) -> None:
    gateway = separate(primary, "hash:384", max_retries=0)
    primary.fail(*[Reply(401)] * 3)
    results = await asyncio.gather(*(gateway.aembed([f"text {n}"]) for n in range(12)), return_exceptions=True)
    spaces = {result.served_by for result in results if not isinstance(result, BaseException)}
    assert len(spaces) == 1
    await gateway.aclose()


# The store.


def fingerprint(**changes: Any) -> Fingerprint:
    rows = {role: tuple(tuple(row) for row in right(CANARIES)) for role in ("document", "query")}
    return Fingerprint(VectorSpace(MODEL), "server", "a", rows, **changes)  # type: ignore[arg-type]


def test_a_fingerprint_is_read_as_it_was_written(store: Store) -> None:
    made = store.keep_first(fingerprint())
    assert store.load(made.space) == made


@pytest.mark.parametrize("damage", [b"", b"{half", b'{"version": 99}', b"[]", b'{"version": 1, "rows": {}}'])
def test_a_spoilt_file_is_measured_anew(store: Store, damage: bytes, primary: FakeOpenAI) -> None:
    gateway = guarded(primary)
    path = store.path(gateway.space)
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    gateway.embed(["one"])
    assert store.load(gateway.space) is not None
    assert [file.suffix for file in path.parent.iterdir()] == [".json"]


def _keep(folder: str, label: str) -> str:
    kept = Store(Path(folder)).keep_first(Fingerprint(VectorSpace(MODEL), "server", label, fingerprint().rows))
    return kept.source


def test_many_processes_agree_on_the_first_fingerprint(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        holding = set(pool.starmap(_keep, [(str(tmp_path), f"process {number}") for number in range(12)]))
    assert len(holding) == 1


def test_the_models_own_files_replace_what_a_server_said(store: Store, primary: FakeOpenAI) -> None:
    space = Gateway("hash-model", ["hash:384"], check_space=True).space
    wrong = Fingerprint(space, "server", "openai:somebody", fingerprint().rows)
    store.keep_first(wrong)
    gateway = Gateway("hash-model", ["hash:384"], check_space=True)
    gateway.embed(["one"])
    kept = store.load(gateway.space)
    assert kept is not None
    assert kept.authority == "files"


# Comparing.


def as_rows(embedder: Embed) -> dict[str, Any]:
    return {"document": tuple(tuple(row) for row in embedder(list(CANARIES)))}


def test_rounding_as_float16_does_it_is_the_same() -> None:
    import struct

    def halved(texts: Sequence[str]) -> list[list[float]]:
        return [[struct.unpack("e", struct.pack("e", value))[0] for value in row] for row in right(texts)]

    found = compare(as_rows(right), as_rows(halved), cut=True)
    assert found.same
    assert math.isclose(found.worst["document"], 1.0, abs_tol=1e-3)


def test_another_dimension_is_named() -> None:
    found = compare(as_rows(right), as_rows(lambda texts: unit_vectors(texts, 16)), cut=True)
    assert found.causes == ("another dimension: 16 numbers a vector, and the space has 384",)


def test_the_file_has_no_texts_and_no_keys(store: Store, primary: FakeOpenAI) -> None:
    primary.api_key = "the-servers-own-key"
    gateway = guarded(Target("openai", url=primary.url, credential="the-servers-own-key"))
    gateway.embed(["a private text"])
    said = store.path(gateway.space).read_text()
    assert "private" not in said
    assert "own-key" not in said
    assert json.loads(said)["version"] == 1
