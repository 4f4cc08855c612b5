"""`local` for reranking: a tiny cross-encoder with fixed weights, held to sentence-transformers."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import RerankGateway, Target, errors
from tests.support.late import COLLECTED
from tests.support.rerank_callers import FORMS, RerankCaller
from tests.support.tiny import MODEL as CHAT_MODEL
from tests.support.tiny_encoders import TEXTS
from tests.support.tiny_rerankers import cross_encoder, reference

if COLLECTED:
    import torch

pytestmark = pytest.mark.xdist_group("torch")

QUERY = "What is the capital of France?"
LONG = "people live there and " * 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return reference(folder)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["openvino", "onnxruntime", "torch"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(form: str, folder: Path, engine: str = "torch", **settings: Any) -> RerankCaller:
    target = Target("local", options={"device": "cpu", "engine": engine})
    return RerankCaller(form, [target], model=str(folder), **settings)


@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_scores_are_those_of_sentence_transformers(
    form: str, engine: str, folder: Path, model: Any, scale: Any
) -> None:
    words = [
        "the",
        "lazy",
        "dog",
        "lives",
        "in",
        "capital",
        "of",
        "france",
        "people",
        "there",
        "long",
        "text",
        "sentence",
        "passage",
    ]
    documents = [*TEXTS, *(" ".join(random.Random(seed).choices(words, k=9)) for seed in range(60))]
    result = call(form, folder, engine, scale=scale, truncate=True).rerank(QUERY, documents)
    activation = torch.nn.Identity() if scale == "logit" else torch.nn.Sigmoid()
    expected = model.predict([(QUERY, text) for text in documents], activation_fn=activation)
    assert result.scale == scale
    assert [hit.score for hit in result] == pytest.approx([float(expected[hit.index]) for hit in result], abs=1e-4)
    assert [hit.score for hit in result] == sorted((hit.score for hit in result), reverse=True)
    assert len({round(hit.score, 6) for hit in result}) > 40  # the weights tell the documents apart


def test_tokens_are_counted_as_the_model_reads_them(form: str, engine: str, folder: Path, model: Any) -> None:
    documents = ["The lazy dog", LONG]
    result = call(form, folder, engine, truncate=True).rerank(QUERY, documents)
    counts = [len(model.tokenizer(QUERY, text, truncation=False)["input_ids"]) for text in documents]
    assert result.usage.input_tokens == counts[0] + 64
    assert (result.usage.documents, counts[1] > 64) == (2, True)


@pytest.mark.parametrize("long", [LONG, LONG * 100], ids=["long", "beyond what is tokenised"])
def test_a_document_beyond_the_context_is_named_and_never_cut_in_silence(
    form: str, engine: str, folder: Path, long: str
) -> None:
    documents = [*(f"number {number}" for number in range(40)), long]
    with pytest.raises(
        errors.ContextOverflow, match=r"document 40 of 41 has .*tokens together with the query"
    ) as caught:
        call(form, folder, engine).rerank(QUERY, documents)
    assert (caught.value.limit, caught.value.place) == (64, 40)


def test_a_query_beyond_the_context_is_an_error_too(form: str, engine: str, folder: Path) -> None:
    with pytest.raises(errors.ContextOverflow, match="document 0 of 1"):
        call(form, folder, engine).rerank(LONG, ["a cat"])


def test_a_model_of_several_labels_is_no_reranker(form: str, engine: str, tmp_path: Path) -> None:
    with pytest.raises(errors.EngineFailed, match=r"3 scores for a pair of texts, so it is a classifier"):
        call(form, cross_encoder(tmp_path / "nli", labels=3), engine).rerank(QUERY, ["a cat"])


def test_an_embedding_model_is_no_reranker() -> None:
    with pytest.raises(errors.EngineFailed, match=r"has no weights for scores.*so it is not a reranker"):
        RerankGateway("sentence-transformers/all-MiniLM-L6-v2", ["local"]).rerank(QUERY, ["a cat"])


def test_a_chat_model_is_no_reranker_unless_it_has_tokens_for_yes_and_no() -> None:
    with pytest.raises(errors.EngineFailed, match="a language model without tokens for yes and no"):
        call("sync", CHAT_MODEL).rerank(QUERY, ["a cat"])


def test_a_model_without_its_head_is_refused_rather_than_filled_with_random_numbers(
    tmp_path: Path, folder: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copied = Path(shutil.copytree(folder, tmp_path / "headless"))
    tensors = {
        name: value for name, value in load_file(copied / "model.safetensors").items() if "classifier" not in name
    }
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(errors.EngineFailed, match=r"'classifier.bias' is missing.* not a reranker"):
        call("sync", copied).rerank(QUERY, ["a cat"])


def test_no_pickles_are_loaded(tmp_path: Path, folder: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "pickled"))
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(errors.EngineFailed, match="no weights in safetensors"):
        call("sync", copied).rerank(QUERY, ["a cat"])


def test_code_of_a_repository_does_not_run_unless_the_option_is_set(tmp_path: Path, folder: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "coded"))
    config = json.loads((copied / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling.Made", "AutoConfig": "modeling.Config"}
    config["model_type"] = "made-up"
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(errors.EngineFailed):
        call("sync", copied).rerank(QUERY, ["a cat"])
    assert not (tmp_path / "ran").exists()


def test_building_and_checking_load_nothing(folder: Path, tmp_path: Path) -> None:
    gateway = RerankGateway(str(folder), ["local"])
    (checked,) = gateway.check()
    assert (checked.answers, "on this machine" in checked.report.detail) == (True, True)
    assert gateway.candidates[0].context is None
    with pytest.raises(errors.ConfigError, match="not a folder with a model"):
        RerankGateway(str(tmp_path), ["local"]).rerank(QUERY, ["a cat"])


def test_an_engine_that_does_not_exist_is_an_error_when_the_chain_is_built(folder: Path) -> None:
    with pytest.raises(errors.ConfigError, match="unknown engine 'openvin'; did you mean 'openvino'"):
        RerankGateway(str(folder), [Target("local", options={"engine": "openvin"})])


def test_two_gateways_share_a_loaded_model_and_closing_one_leaves_it_to_the_other(folder: Path) -> None:
    one, two = call("sync", folder), call("sync", folder)
    assert one.rerank(QUERY, ["a cat"])[0].score == two.rerank(QUERY, ["a cat"])[0].score
    one.gateway.close()
    assert len(two.rerank(QUERY, ["a dog"])) == 1
    assert len(one.rerank(QUERY, ["a dog"])) == 1


def test_without_any_engine_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for package in ("openvino", "onnxruntime", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.EngineMissing, match=r"pip install 'hf-gateway\[local\]'.*'hf-gateway\[torch\]'"):
        RerankGateway(str(folder), ["local"]).rerank(QUERY, ["a cat"])
    result = RerankGateway(str(folder), ["local", "lexical"]).rerank(QUERY, ["a cat", "the capital"])
    assert (result.scale, result.served_by, result[0].document) == ("bm25", ("lexical",), "the capital")
