"""`hf-gateway verify`: which targets are one vector space, what the others do wrong, and how to accept it on purpose."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, VectorSpace, errors
from hf_gateway.cli import main
from hf_gateway.spaces.fingerprint import CANARIES, FOREIGN_TO_FILES, Store, compare
from hf_gateway.spaces.index_lock import IndexLock
from tests.servers import unit_vectors
from tests.servers.loopback import Recorded, Reply, Stream, dead_url
from tests.servers.openai import FakeOpenAI
from tests.spaces.test_guard import other_model, quantised, shuffled, unnormalised

MODEL = "test/embedder"


def openai(*servers: FakeOpenAI) -> list[str]:
    return [f"openai:{server.url}" for server in servers]


def verify(targets: Sequence[str], *more: str, model: str = MODEL) -> int:
    return main(["verify", "--model", model, "--targets", ",".join(targets), *more])


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    (chain,) = json.loads(capsys.readouterr().out)["chains"]
    return chain


def chain_file(tmp_path: Path, *servers: FakeOpenAI, **settings: Any) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"targets": openai(*servers), **settings}.items()]
    (tmp_path / "hf-gateway.toml").write_text(f'[chains.docs]\nmodel = "{MODEL}"\n' + "\n".join(lines) + "\n")


def lost_prompt(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([text.removeprefix("query: ") for text in texts])


def cut(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([text[:400] for text in texts])


def shorter(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors(texts, 16)


def test_targets_of_one_space_are_told_so(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(openai(primary, backup)) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "chain given (from the command line), model test/embedder"
    assert lines[3:5] == [f"  1  openai:{primary.url}: a server", f"  2  openai:{backup.url}: a server"]
    assert [line.split() for line in lines[6:8]] == [
        ["pair", "documents", "queries", "lengths", "verdict"],
        ["1", "and", "2", "1.0000", "1.0000", "0.0%", "same"],
    ]
    assert lines[-1] == "  one vector space"


CAUSES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "another model": (other_model, {}, "another model, or pooled another way", "hf-gateway doctor"),
    "no normalisation": (unnormalised, {}, "the same without normalisation", "normalize=True"),
    "quantised": (quantised, {}, "the same model quantised", "weights of 16 or 32 bits"),
    "another order": (shuffled, {}, "the same in another order", "leave it out"),
    "another dimension": (shorter, {}, "another dimension: 16 numbers a vector", "hf-gateway doctor"),
    "no query prompt": (lost_prompt, {"query_prompt": "query: "}, "without the query prompt", "query_prompt='query: '"),
    "cut elsewhere": (cut, {"truncate": True}, "long texts are cut at another place", "same limit of tokens"),
}


@pytest.mark.parametrize("fault", CAUSES)
def test_the_cause_is_named_for_people_and_for_machines(
    primary: FakeOpenAI, backup: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    backup.embed, settings, cause, way = CAUSES[fault]
    chain_file(tmp_path, primary, backup, **{"document_prompt": "", **settings})
    assert main(["verify", "--chain", "docs"]) == 1
    printed = capsys.readouterr().out
    assert f"2 openai:{backup.url} differs from 1 openai:{primary.url}; probably:" in printed
    assert f"    - {cause}" in printed or cause in printed
    assert way in printed
    assert printed.rstrip().endswith("not one vector space")
    assert f"hf-gateway verify --chain docs --accept openai:{backup.url}" in printed
    assert main(["verify", "--chain", "docs", "--json"]) == 1
    (pair,) = as_json(capsys)["pairs"]
    assert (pair["left"], pair["right"]) == tuple(openai(primary, backup))
    assert pair["verdict"] == "different"
    assert cause in pair["causes"][0]
    assert way in pair["what_to_do"][0]


def test_what_a_server_lost_counts_only_where_it_matters(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    backup.embed = cut
    assert verify(openai(primary, backup)) == 0
    assert "cut at another place, which counts with truncate=True only" in capsys.readouterr().out


def test_variants_of_the_model_name_the_cause_and_an_exact_one_comes_first() -> None:
    def rows(texts: Sequence[str], scale: float = 1.0) -> Any:
        vectors = tuple(tuple(value * scale for value in row) for row in unit_vectors(texts))
        return {"document": vectors, "query": vectors}

    own, cls = rows(CANARIES), rows([f"cls {text}" for text in CANARIES])
    long = rows([f"cls {text}" for text in CANARIES], 3.0)
    variants = {"with CLS pooling": cls, "with CLS pooling and without normalisation": long}
    assert compare(own, cls, cut=False, variants=variants).causes == ("the same with CLS pooling",)
    assert compare(own, long, cut=False, variants=variants).causes == (
        "the same with CLS pooling and without normalisation",
    )
    far = rows([f"cls {text}" for text in CANARIES], 7.0)
    assert (
        compare(own, far, cut=False, variants=variants).causes[0] == "the same with CLS pooling, and of other lengths"
    )
    strange = rows([f"strange {text}" for text in CANARIES])
    assert compare(own, strange, cut=False, variants=variants).causes == (FOREIGN_TO_FILES,)


def test_exchanged_prompts_are_told_from_lost_ones() -> None:
    first, second = (tuple(tuple(row) for row in unit_vectors([f"{n}{text}" for text in CANARIES])) for n in "ab")
    reference: Any = {"document": first, "query": second}
    exchanged: Any = {"document": second, "query": first}
    (cause,) = compare(reference, exchanged, cut=False).causes
    assert cause == "the same with the prompts of queries and documents exchanged"
    (cause,) = compare(reference, {"document": second, "query": second}, cut=False).causes
    assert cause.startswith("the same without the document prompt")


# Who answered, and who did not.


def test_who_could_not_be_asked_does_not_make_the_others_differ(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    away = f"openai:{dead_url()}"
    assert verify([*openai(primary, backup), away]) == 0
    printed = capsys.readouterr().out
    assert f"3  {away}: could not be asked: no connection to" in printed
    assert "one vector space; 1 could not be asked" in printed


def test_nobody_reachable_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([f"openai:{dead_url()}"]) == 1
    assert "no target answered" in capsys.readouterr().out


def test_an_answer_of_no_use_is_a_failure_not_an_absence(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    backup.always(Reply(200, {"data": "nothing"}))
    assert verify(openai(primary, backup)) == 1
    printed = capsys.readouterr().out
    assert "gave an unusable answer" in printed
    assert "not one vector space" in printed


@pytest.mark.parametrize(("status", "message"), [(501, "This server does not support embeddings"), (500, "broken")])
def test_a_server_that_says_no_is_a_failure_not_an_absence(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str], status: int, message: str
) -> None:
    backup.always(Reply(status, {"error": {"code": status, "message": message}}))
    assert verify(openai(primary, backup)) == 1
    assert f"gave an unusable answer: {message}" in capsys.readouterr().out


def test_a_server_that_takes_no_long_text_is_compared_by_the_others(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    with Physical(models=None) as small:
        assert verify(openai(primary, small)) == 0
        assert "one vector space" in capsys.readouterr().out
        with Gateway(MODEL, openai(small), truncate=True) as gateway:
            assert gateway.embed(["short"]).vectors.tolist() == unit_vectors(["short"])


class Physical(FakeOpenAI):
    """llama.cpp, which answers 500 for a text that does not fit into one physical batch."""

    def handle(self, request: Recorded) -> Reply | Stream:
        if any(len(text) > 400 for text in request.json.get("input", ())):
            words = (
                "input (902 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
            )
            return Reply(500, {"error": {"code": 500, "message": words, "type": "server_error"}})
        return super().handle(request)


def test_a_missing_key_is_said_and_nothing_is_sent(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([*openai(primary), "hf"]) == 0
    assert "a required key is missing" in capsys.readouterr().out


def test_one_target_alone_has_nothing_to_be_compared_with(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(openai(primary)) == 0
    printed = capsys.readouterr().out
    assert "there is nothing to compare it with yet" in printed
    assert f"{MODEL} is not on this machine" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chain", "dosc"], "did you mean 'docs'"),
        (["--accept", "openai:http://127.0.0.1:1"], "has no target 'openai:http://127.0.0.1:1'; did you mean 'openai:"),
        (["--index", "nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_wrong_use_exits_with_two(
    arguments: list[str], said: str, primary: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain_file(tmp_path, primary)
    assert main(["verify", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_targets_that_declare_different_spaces_are_measured_all_the_same(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify([*openai(primary), "hash:384"]) == 1
    printed = capsys.readouterr().out
    assert "cannot be built as it is" in printed
    assert "1 and 2: declared: model:" in printed
    assert "not one vector space" in printed


def test_verify_alone_takes_the_chains_of_the_file(
    primary: FakeOpenAI, backup: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain_file(tmp_path, primary, backup)
    assert main(["verify", "--json"]) == 0
    assert as_json(capsys)["chain"] == "docs"


# The stored fingerprint, and accepting.


def test_the_stored_fingerprint_is_compared_with_and_never_written(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(openai(backup)) == 0
    assert Store().load(VectorSpace(MODEL)) is None
    Gateway(MODEL, openai(primary), check_space=True).embed(["hello"])
    before = Store().path(VectorSpace(MODEL)).read_bytes()
    backup.embed = other_model
    capsys.readouterr()
    assert verify(openai(backup)) == 1
    printed = capsys.readouterr().out
    assert f"F  the stored fingerprint: made by openai:{primary.url}, which cannot be verified, 20" in printed
    assert f"1 openai:{backup.url} differs from F the stored fingerprint; probably:" in printed
    assert Store().path(VectorSpace(MODEL)).read_bytes() == before


def test_an_accepted_target_passes_the_guard_and_no_other_does(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    Gateway(MODEL, openai(primary), check_space=True).embed(["hello"])
    backup.embed = quantised
    (label,) = openai(backup)
    with pytest.raises(errors.Quarantined):
        Gateway(MODEL, [label], check_space=True).embed(["hello"])
    assert verify(openai(primary, backup), "--accept", label) == 0
    printed = capsys.readouterr().out
    assert f"accepted: {label} for {VectorSpace(MODEL).id}" in printed
    assert "searches over both give wrong results" in printed
    assert Gateway(MODEL, [label], check_space=True).embed(["hello"]).vectors.tolist() == quantised(["hello"])
    with FakeOpenAI(models=None, embed=quantised) as third, pytest.raises(errors.Quarantined):
        Gateway(MODEL, openai(third), check_space=True).embed(["hello"])
    assert verify(openai(primary, backup)) == 0
    printed = capsys.readouterr().out
    assert "different, accepted" in printed
    assert "one vector space; what differs was accepted" in printed


def test_what_was_accepted_is_held_to_what_it_was_then(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    backup.embed = quantised
    assert verify(openai(primary, backup), "--accept", *openai(backup)) == 0
    backup.embed = other_model
    assert verify(openai(primary, backup)) == 1
    with pytest.raises(errors.Quarantined):
        Gateway(MODEL, openai(backup), check_space=True).embed(["hello"])


def test_what_is_accepted_first_does_not_become_the_measure_of_the_others(
    primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    backup.embed = other_model
    assert verify(openai(primary, backup), "--accept", *openai(backup)) == 0
    kept = Store().load(VectorSpace(MODEL))
    assert kept is not None
    assert kept.source == f"openai:{primary.url}"
    assert list(kept.accepted) == openai(backup)


def test_a_target_that_is_away_cannot_be_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    away = f"openai:{dead_url()}"
    assert verify([away], "--accept", away) == 1
    assert "no connection to" in capsys.readouterr().err


# An index.


def test_an_index_says_what_it_was_made_with_and_who_may_open_it(
    primary: FakeOpenAI, backup: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    maker = Gateway(MODEL, openai(primary), check_space=True)
    maker.lock_index(index)
    maker.embed(["hello"])
    assert main(["verify", "--index", str(index)]) == 0
    printed = capsys.readouterr().out
    assert "built with test/embedder" in printed
    assert f"its vectors: openai:{primary.url}, measured 20" in printed
    assert verify(openai(backup), "--index", str(index)) == 0
    assert f"may be opened by openai:{backup.url}" in capsys.readouterr().out
    backup.embed = other_model
    assert verify(openai(backup), "--index", str(index), "--json") == 1
    found = as_json(capsys)["index"]
    assert found["allowed"] is False
    assert "was made with other vectors" in found["targets"][f"openai:{backup.url}"]
    assert IndexLock.read(index) is not None


def test_an_index_of_another_model_may_not_be_opened(
    primary: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    IndexLock(tmp_path / "index", VectorSpace("test/other")).write()
    assert verify(openai(primary), "--index", str(tmp_path / "index")) == 1
    printed = capsys.readouterr().out
    assert "built with test/other" in printed
    assert f"may not be opened by openai:{primary.url}" in printed


def test_a_folder_without_a_lock_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--index", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "it is not recorded what it was built with" in printed
    assert "adopt=True" in printed


# doctor.


def test_doctor_says_how_vectors_stood_and_asks_for_one_word(
    primary: FakeOpenAI, backup: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    backup.embed = quantised
    assert verify(openai(primary, backup), "--accept", *openai(backup)) == 0
    asked = primary.count("/v1/embeddings")
    capsys.readouterr()
    assert main(["doctor", "--model", MODEL, "--targets", ",".join(openai(primary, backup))]) == 0
    printed = capsys.readouterr().out
    assert "vectors what others are compared with, measured 20" in printed
    assert f"vectors accepted on purpose beside those of openai:{primary.url}" in printed
    assert [request.json["input"] for request in primary.requests if request.path == "/v1/embeddings"][asked:] == [
        ["word"]
    ]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (501, "This server does not support embeddings. Start it with `--embeddings`"),
        (400, "Pooling type 'none' is not OAI compatible. Please use a different pooling type"),
    ],
)
def test_doctor_does_not_say_that_a_server_works_which_lists_models_and_cannot_embed(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], status: int, message: str
) -> None:
    primary.fail(Reply(200, {"object": "list", "data": [{"id": MODEL}]}), path="/v1/models")
    primary.always(Reply(status, {"error": {"code": status, "message": message}}), path="/v1/embeddings")
    assert main(["doctor", "--model", MODEL, "--targets", *openai(primary)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert message[:40] in printed
    assert "no target answers" in printed
    assert "works" not in printed
