"""The engines that run graphs, beside sentence-transformers: every family, way to pool, prompt and length; what they refuse."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.engines import cpus
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import FAMILIES, TEXTS, encoder, reference

if COLLECTED:
    import numpy as np


pytestmark = pytest.mark.xdist_group("torch")

GRAPHS = ("openvino", "onnxruntime")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a model, each kind once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("models")

    def make(family: str = "bert", **settings: Any) -> Path:
        key = f"{family} {sorted(settings.items())}"
        if key not in made:
            made[key] = encoder(root / str(len(made)), family, **settings)
        return made[key]

    return make


def gateway(model: Path | str, engine: str | None = None, dtype: str | None = "fp32", **named: Any) -> Gateway:
    options = {name: value for name, value in (("engine", engine), ("dtype", dtype)) if value is not None}
    return Gateway(str(model), [Target("local", options=options)], **named)


def engine_of(gateway: Gateway) -> Any:
    return gateway.candidates[0].ability.engine()  # type: ignore[attr-defined]


def cosines(found: Any, expected: Any) -> Any:
    one, other = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("engine", GRAPHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_the_vectors_of_sentence_transformers(models: Make, family: str, engine: str) -> None:
    folder = models(family)
    served = gateway(folder, engine, truncate=True)
    found = served.embed(list(TEXTS))
    original = reference(folder)
    expected = original.encode(list(TEXTS))
    assert np.abs(np.asarray(found.vectors) - expected).max() < 1e-4
    assert cosines(found.vectors, expected).min() >= 0.99999
    counts = [min(len(ids), original.max_seq_length) for ids in original.tokenizer(list(TEXTS))["input_ids"]]
    assert found.usage.input_tokens == sum(counts)
    assert (engine_of(served).name, engine_of(served).precision, engine_of(served).device) == (engine, "fp32", "cpu")


@pytest.mark.skipif(not cpus.has_bf16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_bfloat16_is_chosen_where_the_canaries_allow_it_and_stays_near(models: Make, engine: str) -> None:
    folder = models("distilbert")
    served = gateway(folder, engine, None, truncate=True)
    found = served.embed(list(TEXTS)).vectors
    assert engine_of(served).precision == "bf16"
    expected = reference(folder).encode(list(TEXTS))
    assert cosines(found, expected).min() >= 0.999
    assert np.abs(np.asarray(found) - expected).max() > 1e-5, "that was float32"


@pytest.mark.skipif(not cpus.has_bf16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_bfloat16_that_leaves_the_space_is_not_used(
    models: Make, engine: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Numbers of eight bits lie 2 apart there, which is five times what tells the weights apart.
    folder = models("bert", shift=256.0)
    caplog.set_level(logging.INFO, "hf_gateway")
    served = gateway(folder, engine, None, truncate=True)
    found = served.embed(list(TEXTS)).vectors
    assert engine_of(served).precision == "fp32"
    assert cosines(found, reference(folder).encode(list(TEXTS))).min() >= 0.9999
    assert "runs in float32, since in bfloat16" in caplog.text


def test_pooling_side_by_side_a_dense_layer_and_normalisation_are_computed(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Normalize

    folder = encoder(tmp_path / "dense", "mpnet", pooling=("lasttoken", "max"), after=(Dense(64, 12), Normalize()))
    served = gateway(folder, "openvino", truncate=True)
    found = np.asarray(served.embed(list(TEXTS)).vectors)
    assert found.shape[1] == engine_of(served).dimension == served.space.dimension == 12
    assert np.abs(found - reference(folder).encode(list(TEXTS))).max() < 1e-5


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_prompts_go_before_the_texts_of_their_role(models: Make, engine: str) -> None:
    folder = models("roberta", prompts={"query": "what is ", "document": "passage: "})
    served, original = gateway(folder, engine), reference(folder)
    query = served.embed(["the lazy dog"], role="query").vectors[0]
    document = served.embed(["the lazy dog"]).vectors[0]
    assert query == pytest.approx(original.encode_query("the lazy dog").tolist(), abs=1e-5)
    assert document == pytest.approx(original.encode_document("the lazy dog").tolist(), abs=1e-5)
    assert max(abs(one - other) for one, other in zip(query, document, strict=True)) > 1e-3


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_a_long_text_is_refused_or_cut_the_same_by_every_engine(models: Make, engine: str) -> None:
    folder = models("bert", max_seq_length=12, prompts={"query": "what is "})
    long = "the quick brown fox jumps over the lazy dog " * 3000
    with pytest.raises(
        errors.ContextOverflow, match=r"text 1 of 2 has more than .* tokens, but the model's limit is 12"
    ) as caught:
        gateway(folder, engine).embed(["short", long])
    assert caught.value.limit == 12
    with pytest.raises(errors.ContextOverflow, match=r"text 0 of 1 has .* tokens, but the model's limit is 12"):
        gateway(folder, engine).embed(["the quick brown fox jumps over the lazy dog again"])
    found = gateway(folder, engine, truncate=True).embed([long, "short"], role="query")
    assert np.abs(np.asarray(found.vectors) - reference(folder).encode_query([long, "short"])).max() < 1e-5


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_the_order_of_texts_is_kept_over_many_batches(models: Make, engine: str) -> None:
    folder = models("xlm-roberta")
    texts = [f"{'sentence ' * (number % 17)}{number}" for number in range(400)]
    found = np.asarray(gateway(folder, engine, truncate=True).embed(texts).vectors)
    assert np.abs(found - reference(folder).encode(texts)).max() < 1e-4


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_calls_from_many_threads_get_their_own_vectors(models: Make, engine: str) -> None:
    served = gateway(models("bert"), engine)
    texts = [[f"text {number}", "cat " * (number % 9 + 1)] for number in range(40)]
    expected = [served.embed(pair).vectors for pair in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: served.embed(pair).vectors, texts))
    for one, other in zip(found, expected, strict=True):
        assert np.abs(np.asarray(one) - np.asarray(other)).max() < 1e-5


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_a_size_of_batches_changes_no_vector(models: Make, engine: str) -> None:
    folder = models("bert")
    target = Target("local", options={"engine": engine, "dtype": "fp32", "batch_size": 2})
    found = Gateway(str(folder), [target], truncate=True).embed(list(TEXTS)).vectors
    assert np.abs(np.asarray(found) - reference(folder).encode(list(TEXTS))).max() < 1e-4


def test_lower_case_that_the_model_asks_for_by_itself_is_honoured(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "cased", "roberta")
    settings = folder / "sentence_bert_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"do_lower_case": True}))
    texts = ["The LAZY Dog", "the lazy dog"]
    for engine in GRAPHS:
        found = gateway(folder, engine).embed(texts).vectors
        assert found[0] == pytest.approx(found[1], abs=1e-6)
        assert np.abs(np.asarray(found) - reference(folder).encode(texts)).max() < 1e-5


def changed(folder: Path, made: Path, name: str, **values: Any) -> Path:
    """Copy a model with other values in one of its JSON files."""
    shutil.copytree(folder, made)
    path = made / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))
    return made


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("1_Pooling/config.json", {"include_prompt": False}, "its pooling leaves the prompt out"),
        ("config.json", {"is_decoder": True}, "it is a causal model"),
        ("tokenizer_config.json", {"padding_side": "left"}, "its tokenizer pads on the left"),
        ("sentence_bert_config.json", {"query_length": 8}, "its Transformer module has the setting 'query_length'"),
        ("config.json", {"architectures": ["BertLMHeadModel"]}, "it is a causal model"),
    ],
)
def test_what_a_graph_cannot_serve_is_served_by_torch_and_one_line_says_why(
    models: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, values: dict[str, Any], reason: str
) -> None:
    folder = changed(models("bert"), tmp_path / "changed", name, **values)
    caplog.set_level(logging.INFO, "hf_gateway.engines")
    served = gateway(folder, dtype="fp32")
    found = served.embed(["the lazy dog"]).vectors
    assert engine_of(served).name == "sentence-transformers"
    assert np.abs(np.asarray(found) - reference(folder).encode(["the lazy dog"])).max() < 1e-5
    said = [record.getMessage() for record in caplog.records if ": runs on " in record.getMessage()]
    assert len(said) == 1
    assert reason in said[0]


def test_modules_of_its_own_are_left_to_torch(models: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    built = SentenceTransformer(str(models("bert")), device="cpu")
    built.append(LayerNorm(32))
    built.save(str(tmp_path / "layers"))
    served = gateway(tmp_path / "layers")
    found = served.embed(["the lazy dog"]).vectors
    assert engine_of(served).name == "sentence-transformers"
    assert np.abs(np.asarray(found) - reference(tmp_path / "layers").encode(["the lazy dog"])).max() < 1e-5


def test_a_tokenizer_that_lets_more_through_than_there_are_positions_is_left_to_torch(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "long", "roberta", tokenizer_settings={})
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 66}))
    with pytest.raises(errors.EngineFailed, match="it has positions for 64 tokens, but its tokenizer allows 66"):
        gateway(folder, "openvino").embed(["x"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "openvino", "device": "cuda:0"}, "it runs on the CPU, not on device='cuda:0'"),
        ({"engine": "onnxruntime", "dtype": "bf16"}, "it does not support dtype='bf16'"),
        ({"engine": "openvino", "dtype": "float64"}, "it does not support dtype='float64'"),
    ],
)
def test_options_that_an_engine_has_not_are_refused(models: Make, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(errors.EngineFailed, match=reason):
        Gateway(str(models("bert")), [Target("local", options=options)]).embed(["x"])


def test_an_unknown_engine_is_a_mistake_in_the_settings(models: Make) -> None:
    with pytest.raises(errors.ConfigError, match="unknown engine 'onxruntime'"):
        gateway(models("bert"), "onxruntime").embed(["x"])


def test_the_dimension_of_pooling_side_by_side_is_known_before(models: Make) -> None:
    served = gateway(models("bert", pooling=("cls", "mean")), "torch")
    assert (served.space.dimension, served.space.pooling) == (64, "cls+mean")
    assert served.embed(["cat"]).vectors.dim == 64


def test_the_engine_and_its_speed_are_no_part_of_an_identity() -> None:
    from hf_gateway.backends.local import LocalServer

    assert "engine" in LocalServer.tuning_options
    assert "dtype" not in LocalServer.tuning_options
