"""Converted models: made once and compared with the original, run without torch, made anew when broken; never a wrong vector."""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.engines import converted, sources
from tests.servers.hub import FakeHub, HubModel
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import TEXTS, encoder, reference

if COLLECTED:
    import numpy as np


pytestmark = pytest.mark.xdist_group("torch")

GRAPHS = ("openvino", "onnxruntime")
PATIENCE = 300.0
"""Seconds for what takes a few, on a machine that has much else to do."""
_fresh = count(1000)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With an activation that no graph is built for from weights, so that it has to be converted.
    return encoder(tmp_path_factory.mktemp("models") / "bert", prompts={"query": "what is "}, hidden_act="mish")


@pytest.fixture(scope="module")
def expected(original: Path) -> Any:
    return reference(original).encode(list(TEXTS))


@pytest.fixture(scope="module")
def once(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache with the model converted for both engines; tests that spoil it take a copy."""
    cache = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_GATEWAY_CONVERTED", str(cache))
        for engine in GRAPHS:
            embed(original, engine)
    return cache


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))
    return tmp_path / "converted"


@pytest.fixture
def filled(once: Path, cache: Path) -> Path:
    """A cache with the model in it."""
    shutil.copytree(once, cache)
    return cache


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hf_gateway")
    return caplog


def opened(model: Path, engine: str | None = "openvino", **options: Any) -> Gateway:
    """Open anew: the size of batches keeps it apart from what is loaded in this process already."""
    given = {"dtype": "fp32", "batch_size": next(_fresh), **({"engine": engine} if engine else {}), **options}
    return Gateway(str(model), [Target("local", options=given)], truncate=True)


def embed(model: Path, engine: str | None = "openvino", **options: Any) -> Any:
    return np.asarray(opened(model, engine, **options).embed(list(TEXTS)).vectors)


def name_of(gateway: Gateway) -> str:
    return str(gateway.candidates[0].ability.engine().name)  # type: ignore[attr-defined]


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir() and path.name != "notes")


ELSEWHERE = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
for name in {hidden}:
    sys.modules[name] = None
from hf_gateway import Gateway, Target
from hf_gateway.errors import GatewayError
from tests.support.tiny_encoders import TEXTS
{before}
options = json.loads(sys.argv[2])
gateway = Gateway(sys.argv[1], [Target("local", options=options)], truncate=True)
try:
    vectors = gateway.embed(list(TEXTS)).vectors.tolist()
    print(json.dumps([gateway.candidates[0].ability.engine().name, vectors, sorted(sys.modules)]))
except GatewayError as error:
    print(json.dumps([type(error).__name__, str(error), sorted(sys.modules)]))
"""
TORCH = ("torch", "sentence_transformers", "transformers")


def elsewhere(
    model: Path | str, hidden: tuple[str, ...] = TORCH, before: str = "", **options: Any
) -> "subprocess.Popen[str]":
    """Embed in a process of its own, with packages hidden from it."""
    code = ELSEWHERE.format(hidden=hidden, before=textwrap.dedent(before))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(model), json.dumps({"dtype": "fp32", **options})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def outcome(process: "subprocess.Popen[str]") -> tuple[Any, Any, set[str], str]:
    """Return the engine or the error, the vectors or the message, what was imported, and the log."""
    out, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, log
    name, made, modules = json.loads(out.strip().splitlines()[-1])
    return name, made, set(modules), log


@pytest.mark.parametrize("engine", GRAPHS)
def test_what_was_converted_runs_without_torch_and_imports_nothing_heavy(
    original: Path, filled: Path, expected: Any, engine: str
) -> None:
    name, made, modules, log = outcome(elsewhere(original, engine=engine))
    assert name == engine, made
    assert np.abs(np.asarray(made) - expected).max() < 1e-5
    assert not {"huggingface_hub", "httpx2", "openvino_telemetry", "openvino.tools.ovc", "requests"} & modules
    assert "converting" not in log


def test_the_fastest_engine_is_taken_and_the_next_where_it_is_missing(
    original: Path, filled: Path, expected: Any
) -> None:
    assert outcome(elsewhere(original))[0] == "openvino"
    name, made, _, _ = outcome(elsewhere(original, ("openvino", *TORCH)))
    assert name == "onnxruntime"
    assert np.abs(np.asarray(made) - expected).max() < 1e-5


def test_an_entry_may_come_from_another_machine(original: Path, filled: Path, tmp_path: Path, expected: Any) -> None:
    copied = tmp_path / "image"
    shutil.copytree(filled, copied, copy_function=shutil.copyfile)  # with other times
    shutil.rmtree(filled)
    process = elsewhere(original, before=f"import os; os.environ['HF_GATEWAY_CONVERTED'] = {str(copied)!r}")
    name, made, _, _ = outcome(process)
    assert name == "openvino", made
    assert np.abs(np.asarray(made) - expected).max() < 1e-5


def test_a_model_is_known_again_wherever_its_files_lie(
    original: Path, filled: Path, tmp_path: Path, expected: Any
) -> None:
    """After another download: other times, and files that not every way of fetching a model brings."""
    model = tmp_path / "elsewhere"
    shutil.copytree(original, model, copy_function=shutil.copyfile)
    (model / "data_config.json").write_text("{}")
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"a graph")
    before = "from hf_gateway.engines import converted; converted._SMALL = 1000"
    name, made, _, log = outcome(elsewhere(model, before=before))
    assert name == "openvino", made
    assert "converting" not in log
    assert np.abs(np.asarray(made) - expected).max() < 1e-5


def test_a_model_with_one_other_byte_is_another_one(
    original: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted, "_SMALL_FILE_BYTES", 1000)
    monkeypatch.setattr(converted, "_SAMPLE_BYTES", 16)
    model = Path(shutil.copytree(original, tmp_path / "model"))
    files = sources.ModelFiles(model, "path")
    known = converted.identity(files)
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2 + 100] ^= 1  # where no sample is taken
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    other = converted.identity(files)
    assert other != known

    def read(*_: Any) -> None:
        raise AssertionError("read whole again")

    monkeypatch.setattr("hashlib.file_digest", read)
    assert converted.identity(files) == other


def test_without_torch_and_without_a_graph_the_error_says_what_to_do(original: Path, cache: Path) -> None:
    name, told, _, _ = outcome(elsewhere(original))
    assert name == "EngineMissing"
    assert "openvino, onnxruntime: " in told
    assert "has no ONNX file" in told
    assert "pip install 'hf-gateway[torch]'" in told
    assert "HF_GATEWAY_CONVERTED" in told
    assert "sentence-transformers is not installed" in told


@pytest.fixture
def exported(original: Path, once: Path, tmp_path: Path) -> Path:
    """A repository with an ONNX file and without tensors."""
    folder = tmp_path / "exported"
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "onnx").mkdir()
    shutil.copy(next(once.glob("*-onnxruntime-*/model.onnx")), folder / "onnx" / "model.onnx")
    return folder


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_repositorys_onnx_file_is_run_without_torch_and_the_log_says_that_nobody_compared_it(
    exported: Path, cache: Path, expected: Any, engine: str
) -> None:
    name, made, _, log = outcome(elsewhere(exported, engine=engine))
    assert name == engine, made
    assert np.abs(np.asarray(made) - expected).max() < 1e-5
    assert "runs onnx/model.onnx from its repository; without torch it cannot be compared" in log


@pytest.mark.parametrize("unknown", ["settings", "tensors"])
def test_a_model_of_the_hub_that_is_not_built_runs_its_onnx_file_without_torch(
    original: Path, exported: Path, cache: Path, expected: Any, tmp_path: Path, unknown: str
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(original / "model.safetensors")
    if unknown == "tensors":
        tensors["encoder.layer.7.output.dense.bias"] = tensors["encoder.layer.1.output.dense.bias"].clone()
        config = json.loads((exported / "config.json").read_text())
        (exported / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    save_file(tensors, exported / "model.safetensors")
    home = tmp_path / "home"
    with FakeHub({"org/model": HubModel(exported)}) as hub:
        before = f"import os; os.environ.update(HF_ENDPOINT={hub.url!r}, HF_HOME={str(home)!r})"
        name, made, _, log = outcome(elsewhere("org/model", before=before))
        again, _, _, _ = outcome(elsewhere("org/model", before=before))
    assert name == again == "openvino", made
    assert np.abs(np.asarray(made) - expected).max() < 1e-5
    assert "runs onnx/model.onnx from its repository" in log
    assert bool(list(home.rglob("*.safetensors"))) == (unknown == "tensors")  # what the settings say is known before


@pytest.mark.parametrize(
    ("file", "values", "reason"),
    [
        ("config.json", {"model_type": "albert"}, "a graph of the family 'albert' is used only if torch is installed"),
        ("tokenizer_config.json", {"do_lower_case": False}, "its tokenizer.json and its settings differ on lower case"),
        ("tokenizer_config.json", {"padding_side": "left"}, "its tokenizer pads on the left"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "its tokenizer cuts long texts on the left"),
        (
            "sentence_bert_config.json",
            {"max_seq_length": 1000},
            "it has positions for 64 tokens, but its tokenizer allows 1000",
        ),
        ("tokenizer.json", None, "it has no tokenizer.json"),
    ],
)
def test_a_repositorys_graph_that_nobody_can_vouch_for_is_refused(
    exported: Path, cache: Path, file: str, values: dict[str, Any] | None, reason: str
) -> None:
    if values is None:
        (exported / file).unlink()
    else:
        (exported / file).write_text(json.dumps(json.loads((exported / file).read_text()) | values))
    from hf_gateway.engines import originals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "torch_is_here", lambda: False)
        with pytest.raises(errors.EngineFailed, match=reason):
            embed(exported, "onnxruntime")


def spoil_truncated(entry: Path) -> None:
    path = next(entry.glob("model.bin"))
    path.write_bytes(path.read_bytes()[:-100])


def spoil_flipped(entry: Path) -> None:
    path = next(entry.glob("model.bin"))
    data = bytearray(path.read_bytes())
    data[5000] ^= 0xFF
    path.write_bytes(data)


def spoil_missing(entry: Path) -> None:
    (entry / "tokenizer.json").unlink()


def spoil_noise(entry: Path) -> None:
    (entry / "entry.json").write_bytes(b"\x00noise")


def spoil_reference(entry: Path) -> None:
    """As though the files gave other vectors than the original did."""
    about = json.loads((entry / "entry.json").read_text())
    about["reference"]["rows"]["document"].reverse()
    (entry / "entry.json").write_text(json.dumps(about))


def spoil_compiled(entry: Path) -> None:
    for path in entry.rglob("*.blob"):
        path.chmod(0o600)
        path.write_bytes(b"noise")


@pytest.mark.parametrize(
    ("spoil", "anew"),
    [
        (spoil_truncated, True),
        (spoil_flipped, True),
        (spoil_missing, True),
        (spoil_noise, True),
        (spoil_reference, True),
        (spoil_compiled, False),
    ],
)
def test_a_broken_entry_is_made_anew(
    original: Path,
    filled: Path,
    expected: Any,
    logged: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    anew: bool,
) -> None:
    embed(original)
    (entry,) = [path for path in entries(filled) if "-openvino-" in path.name]
    spoil(entry)
    logged.clear()
    assert np.abs(embed(original) - expected).max() < 1e-5
    assert ("converting" in logged.text) is anew
    assert converted.load(entry) is not None
    logged.clear()
    embed(original)
    assert "converting" not in logged.text
    assert not [path for path in filled.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_an_entry_that_nobody_here_could_make_anew_is_left_where_it_is(
    original: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_gateway.engines import originals

    (entry,) = [path for path in entries(filled) if "-openvino-" in path.name]
    spoil_reference(entry)
    monkeypatch.setattr(originals, "torch_is_here", lambda: False)
    with pytest.raises(errors.EngineFailed, match="the canary texts get other vectors"):
        embed(original)
    assert converted.load(entry) is not None


def test_a_model_that_could_not_be_loaded_once_is_tried_again(
    original: Path, cache: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_gateway.engines import originals

    def out_of_memory(self: Any, files: Any) -> None:
        raise errors.EngineFailed("no memory for it just now")

    with monkeypatch.context() as patch:
        patch.setattr(originals.Original, "__init__", out_of_memory)
        with pytest.raises(errors.EngineFailed, match="no memory for it"):
            embed(original)
    assert np.abs(embed(original) - expected).max() < 1e-5


def test_other_weights_of_the_same_size_and_time_are_converted_by_themselves(
    original: Path, filled: Path, tmp_path: Path, expected: Any
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(original, folder)
    weights = folder / "model.safetensors"
    before = weights.stat()
    tensors = load_file(weights)
    tensors["encoder.layer.1.output.dense.bias"][0] += 5.0
    save_file(tensors, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    found = embed(folder)
    assert np.abs(found - reference(folder).encode(list(TEXTS))).max() < 1e-5
    assert np.abs(found - expected).max() > 0.1
    assert sum("-openvino-" in path.name for path in entries(filled)) == 2


def test_a_cache_that_cannot_be_written_leaves_the_model_to_torch(
    original: Path, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "file"))
    gateway = opened(original, None)
    assert np.abs(np.asarray(gateway.embed(list(TEXTS)).vectors) - expected).max() < 1e-5
    assert name_of(gateway) == "sentence-transformers"
    assert "openvino, onnxruntime: the converted model cannot be stored" in logged.text


def test_a_disk_that_fills_up_leaves_the_model_to_torch_and_nothing_behind(
    original: Path, expected: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    import openvino

    def full(graph: Any, path: Path, **named: Any) -> None:
        path.with_suffix(".bin").write_bytes(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(openvino, "save_model", full)
    with pytest.raises(errors.EngineFailed, match=r"cannot be stored.*No space left"):
        embed(original)
    assert not entries(cache)
    monkeypatch.undo()
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(cache))
    assert np.abs(embed(original) - expected).max() < 1e-5  # it was not the model's fault


def test_a_conversion_that_gives_other_vectors_is_not_used_and_not_tried_again(
    original: Path, expected: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    from hf_gateway.engines import originals

    real = originals.Original.traceable

    def wrong(self: Any) -> Any:
        module, example = real(self)
        # One bias of one layer, moved a little.
        next(value for name, value in module.named_parameters() if name.endswith("output.dense.bias")).data[0] += 0.5
        return module, example

    monkeypatch.setattr(originals.Original, "traceable", wrong)
    gateway = opened(original, None)
    assert np.abs(np.asarray(gateway.embed(list(TEXTS)).vectors) - expected).max() < 1e-5
    assert name_of(gateway) == "sentence-transformers"
    assert "the canary texts get other vectors than from the original" in logged.text
    assert not entries(cache)
    logged.clear()
    assert name_of(opened(original, None)) == "sentence-transformers"
    assert "converting" not in logged.text
    assert "the canary texts get other vectors" in logged.text


def test_a_process_that_dies_while_converting_leaves_nothing_that_counts(
    original: Path, cache: Path, expected: Any
) -> None:
    dying = """
    import os, openvino
    def die(graph, path, **named):
        path.write_text("half")
        os._exit(9)
    openvino.save_model = die
    """
    died = elsewhere(original, (), before=dying, engine="openvino")
    died.communicate(timeout=PATIENCE)
    assert died.returncode == 9
    assert [path.name.startswith(".") for path in entries(cache)] == [True]
    assert all(converted.load(path) is None for path in entries(cache))
    assert np.abs(embed(original) - expected).max() < 1e-5
    assert [path.name.startswith(".") for path in entries(cache)] == [False]


def test_who_waited_for_another_process_takes_what_that_one_made(
    original: Path,
    cache: Path,
    once: Path,
    expected: Any,
    logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = converted.folder_of(converted.identity(sources.ModelFiles(original, "path")), "openvino")
    arrived = threading.Event()
    real = fcntl.flock

    def flock(*arguments: Any) -> None:
        arrived.set()
        real(*arguments)

    with ThreadPoolExecutor(1) as pool:
        with converted.temporary_entry(place):  # the other process
            monkeypatch.setattr(fcntl, "flock", flock)
            found = pool.submit(embed, original)
            assert arrived.wait(PATIENCE)
            shutil.copytree(once / place.name, place)
        assert np.abs(found.result(PATIENCE) - expected).max() < 1e-5
    assert "converting" not in logged.text
    assert entries(cache) == [place]


def test_two_that_convert_at_once_make_one_entry(original: Path, cache: Path, once: Path) -> None:
    """As where files cannot be locked: the second finds the place taken and uses what is there."""
    place = converted.folder_of(converted.identity(sources.ModelFiles(original, "path")), "openvino")
    entry = converted.load(once / place.name)
    assert entry is not None
    for name in ("first", "second"):
        passing = cache / name
        shutil.copytree(once / place.name, passing, ignore=shutil.ignore_patterns("entry.json", "fp32-*"))
        made = converted.keep(passing, place, {}, 64, entry.reference)
        assert (made.folder, made.max_tokens) == (place, 64)
    assert converted.load(place) is not None


def test_the_conversion_reports_to_nobody(original: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def reporting(*arguments: Any, **named: Any) -> None:
        raise AssertionError("that one sends a report to Intel, where openvino_telemetry is installed")

    monkeypatch.setattr(openvino, "convert_model", reporting, raising=False)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    embed(original)
    assert entries(cache)


def test_openvinos_own_converter_is_still_there_for_others(filled: Path, original: Path) -> None:
    before = """
    Gateway(sys.argv[1], [Target("local", options={"engine": "openvino"})], truncate=True).embed(["cat"])
    import openvino
    assert callable(openvino.convert_model)
    from openvino import convert_model
    try:
        openvino.nonsense
    except AttributeError:
        pass
    """
    assert outcome(elsewhere(original, ("openvino_telemetry", *TORCH), before=before))[0] == "openvino"


def test_what_is_measured_once_is_not_measured_again(
    original: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_gateway.engines import graphs

    embed(original)

    def unexpected(*arguments: Any) -> float:
        raise AssertionError("all canaries were embedded again")

    monkeypatch.setattr(graphs, "agreement", unexpected)
    embed(original)


def test_what_to_download_depends_on_who_can_read_it(
    original: Path, filled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hf_gateway.backends import local

    model = Path(shutil.copytree(original, tmp_path / "model"))
    files = sources.ModelFiles(model, "path")
    assert local._usable_weights(files) == ("safetensors",)
    monkeypatch.setattr(local, "runnable", lambda: ("openvino",))
    assert local._usable_weights(files) == ("safetensors", "graph"), "a graph may be built of them"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "albert"}))
    assert local._usable_weights(files) == ("graph",)
    assert sources.is_available(sources.ModelFiles(original, "path"), "safetensors")
    assert not sources.is_available(sources.ModelFiles(original, "path"), "graph")
