"""Files of models for browsers: standard operators alone, the vectors of the engines here, or a refusal by name."""

import shutil
from pathlib import Path

import pytest

from hf_gateway.engines.browser_files import GRAPH, NAMES, browser_files, browser_label_files
from hf_gateway.engines.graph_classifier import Engine
from hf_gateway.engines.sources import find
from hf_gateway.errors import EngineFailed
from hf_gateway.values.labels import ClassifyRequest
from tests.support.browser_vectors import browser_logits, browser_vectors
from tests.support.graph_vectors import change, embed, worst_cosine
from tests.support.tiny_classifiers import EVEN_FAMILIES, text_classifier
from tests.support.tiny_classifiers import FAMILIES as LABEL_FAMILIES
from tests.support.tiny_encoders import FAMILIES, ROTARY_FAMILIES, TEXTS, encoder

pytestmark = pytest.mark.xdist_group("torch")


@pytest.mark.parametrize("family", [*FAMILIES, *ROTARY_FAMILIES])
def test_a_family_has_its_vectors_by_standard_operators_alone(family: str, tmp_path: Path) -> None:
    folder = encoder(tmp_path / family, family, seed=5)
    files = find(str(folder))
    assert files is not None
    made = browser_files(files)
    assert b"com.microsoft" not in made[GRAPH].path.read_bytes()
    found = browser_vectors(lambda name: made[name].path.read_bytes(), TEXTS)
    assert worst_cosine(found, embed(folder, "onnxruntime")) >= 0.9999


def test_files_are_made_once_for_each_content(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "one")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    one, other = find(str(folder)), find(str(copy))
    assert one is not None
    assert other is not None
    first = browser_files(one)
    stamp = first[GRAPH].path.stat().st_mtime_ns
    assert browser_files(other) == first
    assert first[GRAPH].path.stat().st_mtime_ns == stamp
    assert set(first) == set(NAMES)
    change(copy, layer_norm_eps=1e-3)
    assert browser_files(other)[GRAPH] != first[GRAPH]


def test_a_pooling_that_browsers_lack_is_refused(tmp_path: Path) -> None:
    files = find(str(encoder(tmp_path / "max", pooling="max")))
    assert files is not None
    with pytest.raises(EngineFailed, match="cannot pool its token vectors: max"):
        browser_files(files)


@pytest.mark.parametrize("family", [*LABEL_FAMILIES, *EVEN_FAMILIES])
def test_a_family_has_its_labels_by_standard_operators_alone(family: str, tmp_path: Path) -> None:
    files = find(str(text_classifier(tmp_path / family, family, seed=5, problem_type="regression")))
    assert files is not None
    made = browser_label_files(files)
    assert b"com.microsoft" not in made[GRAPH].path.read_bytes()
    found = browser_logits(lambda name: made[name].path.read_bytes(), TEXTS[:4])
    wanted = Engine(files, {}, "onnxruntime").classify(ClassifyRequest(TEXTS[:4])).labels
    for row, labels in zip(found, wanted, strict=True):
        # Of 8-bit weights, whose logits lie between -20 and 20.
        assert row == pytest.approx([label.score for label in labels], abs=0.3)


def test_a_model_has_other_files_for_labels_than_for_vectors(tmp_path: Path) -> None:
    files = find(str(text_classifier(tmp_path / "both")))
    assert files is not None
    assert browser_label_files(files)[GRAPH] != browser_files(files)[GRAPH]
