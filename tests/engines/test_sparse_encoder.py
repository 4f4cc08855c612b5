"""Sparse models in this process give what sentence-transformers' SparseEncoder gives."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import SparseGateway, SparseVectors, Target, errors
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import TEXTS, encoder, sparse_encoder

if COLLECTED:
    from sentence_transformers import SparseEncoder

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torch")]

PROMPTS = {"query": "query: ", "document": "passage: "}
FITTING = [text for text in TEXTS if "goes on and on" not in text]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse_encoder(tmp_path_factory.mktemp("splade") / "model")


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse_encoder(tmp_path_factory.mktemp("prompted") / "model", strategy="sum", prompts=PROMPTS, seed=1)


def expected(folder: Path, texts: list[str], role: str) -> list[list[float]]:
    reference = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    encode = reference.encode_query if role == "query" else reference.encode_document
    rows: list[list[float]] = encode(texts, convert_to_sparse_tensor=False, show_progress_bar=False).tolist()
    return rows


def close(found: SparseVectors, rows: list[list[float]]) -> bool:
    return len(found) == len(rows) and all(
        vector.to_dict() == pytest.approx({index: value for index, value in enumerate(row) if value}, abs=1e-4)
        for vector, row in zip(found, rows, strict=True)
    )


@pytest.mark.parametrize("role", ["document", "query"])
@pytest.mark.parametrize("which", ["model", "prompted"])
def test_the_weights_are_those_of_sparse_encoder(which: str, role: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    with SparseGateway(str(folder), ["local"], check_space=True) as gateway:
        result = gateway.embed(FITTING, role=role)
        assert close(result.vectors, expected(folder, FITTING, role))
        assert result.usage.input_tokens
        assert gateway.status()[0].space_check == "same"
        assert asyncio.run(gateway.aembed(FITTING, role=role)).vectors == result.vectors


def test_its_space_is_read_from_the_files(model: Path, prompted: Path) -> None:
    plain, summed = (SparseGateway(str(folder), ["local"]).space for folder in (model, prompted))
    assert (plain.pooling, summed.pooling) == ("splade", "splade-sum")
    assert (summed.query_prompt, summed.document_prompt) == ("query: ", "passage: ")
    assert (plain.dimension or 0) > 100


def test_a_long_text_is_an_error_unless_it_may_be_cut(model: Path) -> None:
    texts = ["short", "a very long text " * 60]
    with SparseGateway(str(model), ["local"]) as gateway, pytest.raises(errors.ContextOverflow) as caught:
        gateway.embed(texts)
    assert caught.value.place == 1
    with SparseGateway(str(model), ["local"], truncate=True) as gateway:
        assert close(gateway.embed(texts).vectors, expected(model, texts, "document"))


def test_many_texts_are_computed_in_batches_in_order(model: Path) -> None:
    texts = [f"{'many people ' * (number % 7)}live there {number}" for number in range(60)]
    with SparseGateway(str(model), [Target("local", options={"batch_size": 8})]) as gateway:
        assert close(gateway.embed(texts).vectors, expected(model, texts, "document"))


def test_a_dense_model_is_not_taken_for_a_sparse_one(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "dense")
    with SparseGateway(str(folder), ["local"]) as gateway, pytest.raises(errors.EngineFailed, match="dense"):
        gateway.embed(["x"])


def test_the_probe_finds_the_model_and_how_it_runs(model: Path) -> None:
    with SparseGateway(str(model), ["local"]) as gateway:
        assert gateway.check()[0].answers
        gateway.embed(["x"])
        assert "by sentence-transformers" in gateway.check()[0].report.detail


def test_another_engine_is_refused(model: Path) -> None:
    with pytest.raises(errors.ConfigError, match="run on torch"):
        SparseGateway(str(model), [Target("local", options={"engine": "openvino"})])


def test_without_torch_the_error_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_gateway.engines.installed", lambda name: name != "sentence_transformers")
    with SparseGateway(str(model), ["local"]) as gateway, pytest.raises(errors.EngineMissing, match="pip install"):
        gateway.embed(["x"])
