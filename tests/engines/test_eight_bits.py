"""Weights in 8 bits (`weights="int8"`): other bytes in memory, the same vector space; and what does not have them says so."""

from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, RerankGateway, Target, errors
from hf_gateway.engines.sources import find
from tests.support.late import COLLECTED
from tests.support.tiny_classifiers import text_classifier
from tests.support.tiny_encoders import TEXTS, encoder

if COLLECTED:
    import numpy as np

    from hf_gateway.engines.networks.numbers import BLOCK_VALUES, in_blocks, out_of_blocks

pytestmark = pytest.mark.xdist_group("torch")

GRAPHS = ("openvino", "onnxruntime")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LARGE: dict[str, Any] = {"hidden_size": 264, "intermediate_size": 520, "num_attention_heads": 3}
"""Large enough for blocks, of widths that are no multiples of one."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))


def vectors(model: str, engine: str, **options: Any) -> Any:
    gateway = Gateway(model, [Target("local", options={"engine": engine, **options})], truncate=True)
    found = np.asarray(gateway.embed(list(TEXTS)).vectors, np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", GRAPHS)
def test_a_real_model_stays_in_its_space(engine: str, precision: str) -> None:
    if find(MINILM) is None:
        pytest.skip("all-MiniLM-L6-v2 is not on this machine")
    if (engine, precision) == ("onnxruntime", "bf16"):
        pytest.skip("ONNX Runtime computes in float32")
    whole = vectors(MINILM, engine, dtype="fp32")
    small = vectors(MINILM, engine, dtype=precision, weights="int8")
    cosines = (whole * small).sum(1)
    assert 0.999 <= cosines.min() < 0.99999  # other numbers, the same space


def test_the_guard_takes_it_for_the_space_of_the_whole_weights() -> None:
    if find(MINILM) is None:
        pytest.skip("all-MiniLM-L6-v2 is not on this machine")
    whole = Target("local", options={"dtype": "fp32"})
    small = Target("local", options={"dtype": "fp32", "weights": "int8"})
    Gateway(MINILM, [whole, small], check_space=True).embed(["a cat"])  # measures the space by the first
    gateway = Gateway(MINILM, [small, whole], check_space=True)
    assert gateway.embed(["a cat"]).served_by == (f"local:{MINILM}",)
    status = gateway.status()[0]
    assert status.space_check == "same"
    assert 0.999 <= (status.worst_cosine or 0) < 0.99999


@pytest.mark.parametrize("engine", GRAPHS)
def test_the_widths_of_a_model_need_not_be_those_of_blocks(tmp_path: Path, engine: str) -> None:
    model = str(encoder(tmp_path / "made", **LARGE, initializer_range=0.02))
    whole, small = vectors(model, engine, dtype="fp32"), vectors(model, engine, dtype="fp32", weights="int8")
    assert 0.999 <= (whole * small).sum(1).min() < 1 - 1e-7


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_reranker_has_them_too(tmp_path: Path, engine: str) -> None:
    model = str(text_classifier(tmp_path / "made", labels=["score"], **LARGE, initializer_range=0.02))
    found = []
    for options in ({}, {"weights": "int8"}):
        gateway = RerankGateway(model, [Target("local", options={"engine": engine, **options})], scale="logit")
        found.append([hit.score for hit in gateway.rerank("a fox", ["a dog", "the capital of France", "2 + 2"])])
    assert found[0] == pytest.approx(found[1], rel=0.05)
    assert found[0] != found[1]


def test_what_does_not_have_them_says_so(tmp_path: Path) -> None:
    made = str(encoder(tmp_path / "made"))
    other = str(encoder(tmp_path / "other", hidden_act="leaky_relu"))
    with pytest.raises(errors.EngineFailed, match="does not support weights='int8'"):
        vectors(made, "torch", weights="int8")
    with pytest.raises(
        errors.EngineFailed, match=r"weights='int8' only for a graph built from weights.*hidden_act='leaky_relu'"
    ):
        vectors(other, "openvino", weights="int8")
    with pytest.raises(errors.ConfigError, match="the option weights is 'int8'"):
        Gateway(made, [Target("local", options={"weights": "int4"})])


def test_a_weight_out_of_blocks_is_within_half_a_step_of_what_it_was() -> None:
    given = np.random.default_rng(1).normal(size=(700, 100)).astype(np.float32)
    given[3, :BLOCK_VALUES] = 0
    made = in_blocks(given)
    assert made is not None
    integers, scales = made
    assert integers.shape == (700, 2, BLOCK_VALUES)
    steps = np.repeat(scales[:, :, 0], BLOCK_VALUES, axis=1)[:, :100]
    assert (np.abs(out_of_blocks(integers, scales, 100) - given) <= steps * 0.501).all()
    assert in_blocks(given[:10]) is None
