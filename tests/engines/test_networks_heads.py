"""Heads for labels on graphs built from weights, without torch: the scores of transformers, or a refusal with its reason."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import ClassifyGateway, RerankGateway, Target, errors
from hf_gateway.engines.networks.build import build_refusal
from hf_gateway.engines.networks.heads import build_labelled
from tests.servers.hub import FakeHub, HubModel
from tests.support.classifiers import assert_same_labels
from tests.support.late import COLLECTED
from tests.support.tiny_classifiers import EMOTIONS, EVEN_FAMILIES, FAMILIES, JUDGEMENTS, text_classifier
from tests.support.tiny_encoders import TEXTS
from tests.support.tiny_rerankers import reference

if COLLECTED:
    import transformers

pytestmark = pytest.mark.xdist_group("torch")

GRAPHS = ("openvino", "onnxruntime")
SHAPES: dict[str, dict[str, int]] = {
    "one layer of eight heads": {"layers": 1, "heads": 8, "hidden": 64, "inner": 48},
    "an odd width": {"layers": 2, "heads": 3, "hidden": 33, "inner": 130},
}
EVEN_SHAPES = {
    "one layer of eight heads": SHAPES["one layer of eight heads"],
    "an odd width": {"layers": 2, "heads": 3, "hidden": 30, "inner": 131},
}
"""For heads that need an even number of values; the odd width is that between the layers."""
MODERNBERTS: dict[str, dict[str, Any]] = {
    "the first token, texts longer than the windows": {"num_hidden_layers": 4, "local_attention": 6},
    "the mean of the tokens, shifts everywhere": {
        "num_attention_heads": 4,
        "hidden_size": 24,
        "intermediate_size": 9,
        "classifier_pooling": "mean",
        "classifier_bias": True,
        "classifier_activation": "silu",
        "norm_bias": True,
        "norm_eps": 1e-3,
    },
}
"""Their heads need an even number of values."""
NAMES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "inner": "intermediate_size",
}
DISTILBERTS_NAMES = {"layers": "n_layers", "heads": "n_heads", "hidden": "dim", "inner": "hidden_dim"}
QUERY = "What is the capital of France?"
LONG = "a very long text that goes on and on " * 40
TOLERANCE = 5e-5
"""Of a score, as a share of the largest one of a model: float32, added up in another order."""


def sizes(family: str, shape: str) -> dict[str, int]:
    names = DISTILBERTS_NAMES if family == "distilbert" else NAMES
    shapes = EVEN_SHAPES if family in EVEN_FAMILIES else SHAPES
    return {names[name]: value for name, value in shapes[shape].items()}


def target(engine: str) -> Target:
    return Target("local", options={"engine": engine})


def reranker(folder: Path, family: str = "bert", **config: Any) -> Path:
    return text_classifier(folder, family, ["score"], **{"model_max_length": 64, **config})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker(tmp_path_factory.mktemp("heads") / "bert")


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | values))


def scores(folder: Path, engine: str | None, query: str = QUERY) -> list[float]:
    options = {"engine": engine} if engine else {}
    gateway = RerankGateway(str(folder), [Target("local", options=options)], truncate=True, scale="logit")
    found = {hit.index: hit.score for hit in gateway.rerank(query, list(TEXTS))}
    return [found[place] for place in range(len(TEXTS))]


def logits(model: Any, query: str = QUERY) -> list[float]:
    """The scores of sentence-transformers."""
    import torch

    found = model.predict([(query, text) for text in TEXTS], activation_fn=torch.nn.Identity())
    return [float(each) for each in found]


def close_to(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=TOLERANCE * max(1.0, *map(abs, expected)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", [*FAMILIES, "nomic_bert", "gte"])
def test_a_reranker_of_a_family_in_any_shape_has_the_scores_of_a_cross_encoder(
    family: str, shape: str, tmp_path: Path
) -> None:
    folder = reranker(tmp_path / "made", family, seed=5, **sizes(family, shape))
    model = reference(folder)
    for query in (QUERY, LONG):
        expected = logits(model, query)
        for engine in GRAPHS:
            assert scores(folder, engine, query) == close_to(expected), engine


@pytest.mark.parametrize("shape", MODERNBERTS)
def test_a_modernbert_has_the_scores_of_a_cross_encoder_and_the_labels_of_transformers(
    shape: str, tmp_path: Path
) -> None:
    folder = reranker(tmp_path / "pairs", "modernbert", seed=5, **MODERNBERTS[shape])
    model = reference(folder)
    for query in (QUERY, LONG):
        expected = logits(model, query)
        for engine in GRAPHS:
            assert scores(folder, engine, query) == close_to(expected), engine
    labelled = text_classifier(tmp_path / "labels", "modernbert", seed=6, **MODERNBERTS[shape])
    assert_labels_of_pipeline(labelled)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classifier_pooling": "max"}, "classifier_pooling='max', which is not one of cls, mean"),
        ({"classifier_activation": "leaky_relu"}, "classifier_activation='leaky_relu', which is not one of gelu"),
        ({"classifier_bias": True}, "the tensor 'head.dense.bias' is missing"),
    ],
)
def test_a_setting_of_modernberts_head_that_is_not_known_is_refused_by_name(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = reranker(tmp_path / "made", "modernbert")
    change(folder / "config.json", **changes)
    assert reason in str(build_refusal(folder, build_labelled))


@pytest.mark.parametrize("family", [*FAMILIES, "nomic_bert", "gte"])
def test_a_classifier_of_a_family_has_the_labels_of_transformers_pipeline(family: str, tmp_path: Path) -> None:
    assert_labels_of_pipeline(text_classifier(tmp_path / "made", family, seed=6, **sizes(family, "an odd width")))


def assert_labels_of_pipeline(folder: Path) -> None:
    pipeline = transformers.pipeline("text-classification", model=str(folder))
    short = [text for text in TEXTS if len(text) < 60]
    expected = [[(each["label"], each["score"]) for each in pipeline(text, top_k=None)] for text in short]
    for engine in GRAPHS:
        with ClassifyGateway(str(folder), [target(engine)], truncate=True) as gateway:
            for found, wanted in zip(gateway.classify(short), expected, strict=True):
                assert_same_labels(found, wanted, TOLERANCE)


def test_by_default_the_fastest_engine_runs_and_each_can_be_named(bert: Path) -> None:
    for options, name in (({}, "openvino"), ({"engine": "onnxruntime"}, "onnxruntime"), ({"dtype": "fp16"}, "sent")):
        gateway = RerankGateway(str(bert), [Target("local", options=options)])
        gateway.rerank(QUERY, ["a cat"])
        assert gateway.candidates[0].ability.engine().name.startswith(name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_model_that_sentence_transformers_saved_is_read(bert: Path, tmp_path: Path, engine: str) -> None:
    reference(bert).save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").is_file()
    assert scores(tmp_path / "saved", engine) == close_to(logits(reference(bert)))


WITHOUT_TORCH = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
for name in ("torch", "transformers", "sentence_transformers", "safetensors", "onnx"):
    sys.modules[name] = None
from hf_gateway import ClassifyGateway, RerankGateway, Target
model, engine, task = sys.argv[1:]
targets = [Target("local", options={"engine": engine} if engine else {})]
if task == "rerank":
    gateway = RerankGateway(model, targets)
    print(json.dumps([hit.score for hit in gateway.rerank("What is the capital?", ["a cat", "Paris, the capital"])]))
else:
    gateway = ClassifyGateway(model, targets)
    print(json.dumps({each.label: each.score for each in gateway.classify(["a cat"], ["dogs", "cats"])[0]}))
"""


def without_torch(model: str, task: str, engine: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a model in a process from which torch is hidden."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, model, engine, task],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **environment},
    )


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_reranker_runs_without_torch(bert: Path, engine: str) -> None:
    done = without_torch(str(bert), "rerank", engine)
    assert done.returncode == 0, done.stderr
    found = RerankGateway(str(bert), [target("torch")]).rerank("What is the capital?", ["a cat", "Paris, the capital"])
    assert json.loads(done.stdout) == pytest.approx([hit.score for hit in found], abs=TOLERANCE)


def test_a_classifier_of_the_hub_is_downloaded_and_runs_without_torch(tmp_path: Path) -> None:
    folder = text_classifier(tmp_path / "made", "roberta", JUDGEMENTS, seed=1)
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        places = {"HF_HOME": str(tmp_path / "home"), "HF_GATEWAY_HOME": str(tmp_path / "gw")}
        done = without_torch("org/model", "classify", HF_ENDPOINT=hub.url, **places)
    assert done.returncode == 0, done.stderr
    with ClassifyGateway(str(folder), [target("torch")]) as gateway:
        (expected,) = gateway.classify(["a cat"], ["dogs", "cats"])
    assert json.loads(done.stdout) == pytest.approx({each.label: each.score for each in expected}, abs=TOLERANCE)


def test_without_torch_a_family_that_is_not_built_is_refused_before_its_weights_are_downloaded(
    bert: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(bert, tmp_path / "other"))
    change(copied / "config.json", model_type="albert")
    with FakeHub({"org/model": HubModel(copied)}) as hub:
        places = {"HF_HOME": str(tmp_path / "home"), "HF_GATEWAY_HOME": str(tmp_path / "gw")}
        done = without_torch("org/model", "rerank", HF_ENDPOINT=hub.url, **places)
        assert not list((tmp_path / "home").rglob("*.safetensors"))
    assert done.returncode != 0
    assert "graphs of the family 'albert' are not built" in done.stderr
    assert "pip install 'hf-gateway[torch]'" in done.stderr


def _typed(model: Path) -> None:
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    for piece in tokenizer["post_processor"]["pair"]:
        next(iter(piece.values()))["type_id"] = 0
    path.write_text(json.dumps(tokenizer))


def _unmarked(model: Path) -> None:
    change(model / "tokenizer.json", post_processor=None)


def _prompted(model: Path) -> None:
    reference(model).save_pretrained(str(model))
    change(model / "config_sentence_transformers.json", prompts={"q": "query: "}, default_prompt_name="q")


def _with_module(model: Path) -> None:
    reference(model).save_pretrained(str(model))
    listed = json.loads((model / "modules.json").read_text())
    last = {"idx": 1, "name": "1", "path": "1", "type": "sentence_transformers.base.modules.dense.Dense"}
    (model / "modules.json").write_text(json.dumps([*listed, last]))


def _unlabelled(model: Path) -> None:
    change(model / "config.json", id2label={"1": "score"})


def _left(model: Path) -> None:
    change(model / "tokenizer_config.json", truncation_side="left")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_typed, "gives pairs other token types"),
        (_unmarked, "does not say how two texts are joined"),
        (_prompted, "has a prompt"),
        (_with_module, "not those of a cross-encoder"),
        (_unlabelled, "an id2label that does not name the labels"),
        (_left, "cuts long texts on the left"),
        (
            lambda model: change(model / "config.json", hidden_act="leaky_relu"),
            "hidden_act='leaky_relu', which is not one of gelu",
        ),
        (lambda model: change(model / "config.json", num_labels=3), "num_labels=3, but names 1 labels"),
    ],
    ids=["types", "marks", "prompt", "modules", "labels", "side", "activation", "count"],
)
def test_what_is_not_understood_is_refused_by_name(model: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(model)
    for engine in GRAPHS:
        with pytest.raises(errors.EngineFailed, match=reason):
            scores(model, engine)


def test_what_is_refused_runs_on_torch_with_the_reason_in_the_log(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(model / "config.json", hidden_act="leaky_relu")
    with caplog.at_level(logging.INFO, "hf_gateway"):
        found = scores(model, None)
    assert found == close_to(logits(reference(model)))
    assert (
        "runs on sentence-transformers, since openvino, onnxruntime: its config.json has hidden_act='leaky_relu'"
        in (caplog.text)
    )


@pytest.mark.parametrize("name", ["classifier.weight", "pooler.dense.bias"])
def test_a_head_that_is_missing_or_another_tensor_beside_it_is_refused_by_name(model: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    whole = {each: tensor for each, tensor in tensors.items() if not each.endswith(name)}
    save_file(whole, model / "model.safetensors")
    assert f"the tensor {name!r} is missing" in str(build_refusal(model, build_labelled))
    save_file({**tensors, "classifier.extra.weight": tensors["classifier.weight"].clone()}, model / "model.safetensors")
    assert "have the tensor 'classifier.extra.weight'" in str(build_refusal(model, build_labelled))


def test_labels_have_transformers_names_where_the_file_has_none(tmp_path: Path) -> None:
    folder = text_classifier(tmp_path / "made", labels=EMOTIONS[:2])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if name not in ("id2label", "label2id")})
    )
    named = []
    for engine in (*GRAPHS, "torch"):
        with ClassifyGateway(str(folder), [target(engine)]) as gateway:
            named.append(sorted(each.label for each in gateway.classify(["a cat"])[0]))
    assert named == [["LABEL_0", "LABEL_1"]] * 3
