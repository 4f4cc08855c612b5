"""Names, files of models, config files, what is kept here: each is read, or one of our errors, soon."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, VectorSpace, errors
from hf_gateway.cli import main
from hf_gateway.hub import card, router_catalogue
from hf_gateway.hub.adapter import read_adapter
from hf_gateway.hub.contents import Malformed, tensors_in
from hf_gateway.spaces.fingerprint import CANARIES, Fingerprint, Store
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.values.http import HttpResponse
from tests.support.embedders import MODEL
from tests.support.nasty import LIMIT_S, LONG_NUMBER, all_survive, survives
from tests.wire.test_fuzz_parsers import ROUTER

NAMES = [
    "x" * 5000,
    "a/" + "x" * 5000,
    "x" * 300,
    "a/" * 2000,
    "/" + "y" * 300,
    "/" + "a/" * 3000,
    "~nobody_here/x",
    "~",
    "..",
    ".",
    "./",
    "\x00",
    "a\x00b",
    "\ud800",
    "a\nb",
    " ",
    "a" * 97 + "/b",
    "héé/ü",
    "hf.co/" + "z" * 400,
    "%00",
    "a/b/c/d",
    "a@" + "b" * 500,
    "C:\\x",
]


@pytest.mark.parametrize("task", ["embedding", "chat"])
@pytest.mark.parametrize(
    "kind", ["local", "openai:http://127.0.0.1:9", "ollama:http://127.0.0.1:9", "tei:http://127.0.0.1:9"]
)
def test_every_name_of_a_model_is_taken_or_refused_by_one_of_our_errors(
    kind: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def ask(name: str) -> None:
        with Gateway(name, [kind], task=task, max_retries=0, timeout=1) as gateway:  # type: ignore[arg-type]
            gateway.status()
            if task == "embedding":
                gateway.embed(["x"])
            else:
                gateway.chat("x")

    for name in NAMES:
        survives(ask, name)
        survives(lambda given: Gateway(MODEL, [f"{kind.partition(':')[0]}:{given}"]).status(), name)
        survives(lambda given: Gateway(MODEL, ["local"], revision=given).status(), name)


# Files of models.

BERT = "sentence_transformers.models"
FOLDER: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": f"{BERT}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{BERT}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": f"{BERT}.Dense"},
    ],
    "config.json": {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": 4,
        "max_position_embeddings": 16,
    },
    "config_sentence_transformers.json": {"prompts": {"query": "q: ", "document": "d: "}},
    "sentence_bert_config.json": {"max_seq_length": 16},
    "tokenizer_config.json": {"model_max_length": 16},
    "1_Pooling/config.json": {"word_embedding_dimension": 4, "pooling_mode_mean_tokens": True, "pooling_mode": "mean"},
    "2_Dense/config.json": {"in_features": 4, "out_features": 4},
}


@pytest.mark.parametrize("name", FOLDER)
def test_every_file_of_a_model_folder_is_read_or_one_of_our_errors(tmp_path: Path, name: str) -> None:
    for each, good in FOLDER.items():
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_text(json.dumps(good))

    def read(body: bytes) -> None:
        (tmp_path / name).write_bytes(body)
        with Gateway(str(tmp_path), ["local"]) as gateway:
            assert gateway.space.id
        Gateway(str(tmp_path), ["local"], task="chat").status()

    all_survive(read, FOLDER[name])


@pytest.mark.parametrize("path", ["/etc", "../other", "a/../../b", "\\\\server\\x", "C:\\x", "file:/x"])
def test_a_model_that_names_files_outside_of_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": f"{BERT}.Pooling", "path": path}]))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(errors.ConfigError, match="outside of the model's folder"):
        Gateway(str(tmp_path), ["local"])


def test_every_header_of_a_tensor_file_is_read_or_called_malformed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"

    def read(header: bytes) -> None:
        file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        tensors_in(file)

    all_survive(
        read, {"w": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}}, Malformed
    )
    for raw in (b"", b"\xff" * 8, b"\xff" * 100, (2**62).to_bytes(8, "little") + b"{}"):
        file.write_bytes(raw)
        survives(tensors_in, file, Malformed)


# What is kept on this machine, and may be spoilt.


def spoilt(path: Path, read: Callable[[], Any]) -> Callable[[bytes], Any]:
    def parse(body: bytes) -> None:
        path.write_bytes(body)
        read()

    return parse


@pytest.fixture
def fingerprint() -> Fingerprint:
    rows = tuple((1.0, 2.0) for _ in CANARIES)
    return Fingerprint(VectorSpace("a/b", dimension=2), "server", "x", {"document": rows, "query": rows})


def test_every_lock_of_an_index_is_read_or_one_of_our_errors(tmp_path: Path, fingerprint: Fingerprint) -> None:
    lock = IndexLock(tmp_path, fingerprint.space, "2026-01-01T00:00:00+00:00", "me", fingerprint)
    all_survive(spoilt(tmp_path / "space.json", lambda: IndexLock.read(tmp_path)), lock.to_dict())


def test_every_spoilt_fingerprint_is_no_fingerprint(tmp_path: Path, fingerprint: Fingerprint) -> None:
    store = Store(tmp_path)
    all_survive(spoilt(store.path(fingerprint.space), lambda: store.load(fingerprint.space)), fingerprint.to_dict())


def test_every_spoilt_catalogue_is_no_catalogue(tmp_path: Path) -> None:
    router_catalogue.RouterCatalogue("https://router", tmp_path)._store(
        HttpResponse(200, {}, json.dumps(ROUTER).encode())
    )
    (path,) = tmp_path.iterdir()
    all_survive(
        spoilt(path, lambda: router_catalogue.RouterCatalogue("https://router", tmp_path).cached_entry("a/b")), ROUTER
    )


def test_every_config_of_an_adapter_is_read_or_one_of_our_errors(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    good = {"peft_type": "LORA", "base_model_name_or_path": "a/b", "task_type": "CAUSAL_LM", "r": 8, "revision": None}
    all_survive(spoilt(tmp_path / "adapter_config.json", lambda: read_adapter(tmp_path)), good)


CARDS = [
    "license: mit",
    "license: no",
    "license: [1]",
    "a: &a [*a]",
    "- 1",
    "x",
    "{",
    "a: !!python/object:os.system x",
    "\x00",
    "1: 2",
    "null: 1",
    "license: 2024-01-01",
    "model-index: 1",
    "model-index:\n- name: 1\n  results: 1",
    "license: \ud800",
    "x: 1e999999999",
    "d: 9999-99-99",
    "b: !!binary x",
    "t: !!timestamp x",
    "<<: 1",
    "%YAML 9.9",
    "a: &x {<<: *x}",
    f"i: 0x{'f' * 5000}",
    f"a: {LONG_NUMBER}",
    "&a " * 100,
    "license: " + "[" * 500 + "]" * 500,
    "license: " + "[" * 3000 + "]" * 3000,
]


def test_every_card_is_read_or_one_of_our_errors() -> None:
    for metadata in CARDS:
        survives(card.license_in, f"---\n{metadata}\n---\ntext")
    for whole in ("", "---", "---\n", "\ufeff---\nlicense: mit\n---\n"):
        survives(card.license_in, whole)


# What people write.

CONFIGS = [
    "[chains.a]\ntargets = 1",
    "[chains.a]\ntargets = [1]",
    "[chains.a]\ntargets = [[]]",
    "[chains.a]\ntargets = []",
    "chains = 1",
    "chains = []",
    "[chains.a]\ntargets = {}",
    "[chains.a]\ntargets = [{}]",
    "[chains.a]\ntargets = [{kind = 1}]",
    "[[chains]]\nmodel = 'x'",
    "keys = 1",
    "[chains.a]\ntargets = [{kind = 'openai', url = 1}]",
    "[chains.a]\ntargets = [{kind = 'openai', url = 'http://x', options = 1}]",
    "[chains]\na = 1",
    "[chains.a]\ntask = []",
    "[chains.a]\ntask = 1",
    "[chains.a]\ntask = 'x'",
    "[chains.a]\nmodel = 1",
    "[keys]\nmodels = 1",
    f"[chains.a]\ntimeout = {LONG_NUMBER}",
    "[chains.a]\nmodel = " + "[" * 3000 + "]" * 3000,
    "x = " + "[" * 3000 + "]" * 3000,
    "[keys.models]\nx = 1",
    "[keys.models]\nx = []",
    "[chains.a]\ntimeout = nan",
    "[chains.a]\ntimeout = inf",
    "[chains.a]\ntimeout = true",
    "[chains.a]\ncache = 1",
    "[chains.a]\ncache = []",
    "[chains.a]\napi_key = 1",
    "[chains.a]\nmodel = 1979-05-27",
    "\x00",
    "." * 5000,
    "[chains.a]\nmodel = '" + "x" * 100_000 + "'",
    "[chains.a" + ".b" * 4000 + "]",
    "[chains.a]\nmodel" + ".x" * 4000 + " = 1",
]


@pytest.mark.parametrize("text", CONFIGS, ids=range(len(CONFIGS)))
def test_every_config_file_is_read_or_one_of_our_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "hf-gateway.toml"
    path.write_text(f"{text}\n", encoding="utf-8")
    monkeypatch.setenv("HF_GATEWAY_CONFIG", str(path))
    began = time.process_time()
    survives(lambda _: Gateway.from_config("a"), text)
    survives(lambda _: Gateway(MODEL, ["hash"]).status(), text)
    assert main(["embed", "--chain", "a", "word"]) in (0, 1, 2)
    assert main(["verify", "--chain", "a", "--json"]) in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert time.process_time() - began < LIMIT_S


FLAGS = [
    ("embedding", {"max_retries": True}),
    ("embedding", {"timeout": True}),
    ("embedding", {"dimensions": True}),
    ("embedding", {"canary_every": False}),
    ("embedding", {"max_concurrency": True}),
    ("embedding", {"coalesce": False}),
    ("chat", {"max_tokens": True}),
    ("chat", {"temperature": False}),
    ("chat", {"seed": True}),
    ("chat", {"patience": True}),
]


@pytest.mark.parametrize(("task", "given"), FLAGS, ids=[f"{given}" for _, given in FLAGS])
def test_true_and_false_are_no_numbers(task: str, given: dict[str, Any]) -> None:
    with pytest.raises((errors.ConfigError, ValueError), match="is not a number"):
        Gateway(MODEL, ["openai:http://127.0.0.1:9"], task=task, **given)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        *[("local", {"batch_size": value}) for value in (0, -1, True, "8", 1.5, 10**30, [])],
        *[("openai", {"max_texts": value}) for value in (0, -1, True, "x", 10**30)],
        ("openai", {"stream_usage": 1}),
        ("openai", {"encoding": ["auto"]}),
        ("local", {"device": True}),
        ("local", {"trust_remote_code": "yes"}),
        ("ollama", {"num_ctx": True}),
        ("ollama", {"options": []}),
        ("tei", {"prompt_names": "query"}),
        ("hash", {"dim": True}),
        ("endpoint", {"access": 1}),
        ("hf", {"bill_to": 1}),
    ],
)
def test_an_option_of_another_type_is_refused_by_its_name(target: str, options: dict[str, Any]) -> None:
    url = None if target in ("local", "hash", "hf") else "http://127.0.0.1:9"
    (name,) = options
    with pytest.raises(errors.ConfigError, match=name):
        Gateway(MODEL, [{"kind": target, "url": url, "options": options}])
