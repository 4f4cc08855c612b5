"""The parts of the engines that need no model: processors, choice of an engine, batches, counting, pooling."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gateway.engines import choosing, cpus, openvino
from hf_gateway.engines.batches import PASS_SHARE, batches_by_length
from hf_gateway.engines.choosing import (
    CPU_BATCH_TOKENS,
    GPU_BATCH_TOKENS,
    TorchPlan,
    built_for_gpu,
    engine_order,
    torch_plan,
)
from hf_gateway.engines.encoder import WINDOW_CHARS, text_windows
from hf_gateway.engines.graphs import chosen_output
from hf_gateway.engines.layout import MODES, Dense, Layout
from hf_gateway.engines.pooling import Head
from hf_gateway.errors import ConfigError, EngineFailed
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np


def machine(root: Path, cgroup: str, files: Mapping[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        pytest.param("0::/", {"cpu.max": "150000 100000\n"}, 1.5, id="v2 in a container"),
        pytest.param(
            "0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5, id="v2, the parent's limit"
        ),
        pytest.param("0::/a", {"a/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2.0, id="v2, its own limit"),
        pytest.param("0::/", {"cpu.max": "max 100000"}, None, id="v2 without a limit"),
        pytest.param("0::/host/path", {"cpu.max": "100000 100000"}, 1.0, id="v2 with the host's path"),
        pytest.param("0::/../../x", {"cpu.max": "100000 100000"}, 1.0, id="v2 with a path from outside"),
        pytest.param(
            "3:memory:/m\n2:cpu,cpuacct:/d",
            {"cpu,cpuacct/d/cpu.cfs_quota_us": "300000", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"},
            3.0,
            id="v1",
        ),
        pytest.param(
            "2:cpu,cpuacct:/d",
            {"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"},
            0.5,
            id="v1, short mount",
        ),
        pytest.param(
            "2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, id="v1 without a limit"
        ),
        pytest.param("0::/", {}, None, id="no files"),
    ],
)
def test_the_quota_of_a_container_is_read(
    tmp_path: Path, cgroup: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpus.quota_of(machine(tmp_path, cgroup, files)) == quota


def test_a_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cpus.quota_of(tmp_path) is None
    assert cpus.restricted(tmp_path) is None or cpus.usable(tmp_path) < (os.cpu_count() or 1)


def test_a_quota_of_half_a_processor_leaves_one_thread_and_one_of_many_leaves_those_there_are(tmp_path: Path) -> None:
    half = machine(tmp_path / "half", "0::/", {"cpu.max": "50000 100000"})
    many = machine(tmp_path / "many", "0::/", {"cpu.max": "99900000 100000"})
    assert cpus.usable(half) == 1
    assert cpus.usable(many) == len(os.sched_getaffinity(0))
    assert cpus.restricted(half) == (1 if (os.cpu_count() or 1) > 1 else None)


def test_processes_that_share_the_processors_start_threads_for_their_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "_sharing", 1)
    all_of_them = cpus.usable(tmp_path)
    cpus.share(2)
    assert cpus.usable(tmp_path) == max(1, all_of_them // 2)
    cpus.share(all_of_them + 1)
    assert cpus.usable(tmp_path) == 1
    assert cpus.restricted(tmp_path) == (1 if (os.cpu_count() or 1) > 1 else None)


@pytest.mark.skipif(os.cpu_count() == 1, reason="one processor cannot be shared")
def test_openvino_binds_no_threads_where_other_processes_have_the_other_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpus, "_sharing", 2)
    engine_settings = openvino._settings("fp32")
    assert engine_settings["INFERENCE_NUM_THREADS"] == cpus.usable()
    assert engine_settings["ENABLE_CPU_PINNING"] is False


def test_the_flags_of_the_first_processor_are_read_on_both_architectures() -> None:
    assert "avx512_bf16" in cpus.flags_in("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n\nflags\t: other\n")
    assert cpus.flags_in("processor : 0\nFeatures\t: fp asimd bf16\n") == {"fp", "asimd", "bf16"}
    assert cpus.flags_in("") == frozenset()


@pytest.mark.parametrize(
    ("options", "cuda", "expected"),
    [
        ({}, False, ("openvino", "onnxruntime", "sentence_transformers")),
        ({"device": "cpu"}, True, ("openvino", "onnxruntime", "sentence_transformers")),
        ({}, True, ("sentence_transformers", "openvino", "onnxruntime")),
        ({"device": "cuda:1"}, True, ("sentence_transformers",)),
        ({"device": "mps"}, False, ("sentence_transformers",)),
        ({"engine": "openvino"}, True, ("openvino",)),
        ({"engine": "onnxruntime"}, False, ("onnxruntime",)),
        ({"engine": "torch"}, False, ("sentence_transformers",)),
        ({"engine": "sentence-transformers"}, False, ("sentence_transformers",)),
    ],
)
def test_the_order_of_engines(options: dict[str, str], cuda: bool, expected: tuple[str, ...]) -> None:
    assert engine_order(options, cuda=cuda) == expected


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown engine 'openvin'.*openvino"):
        engine_order({"engine": "openvin"}, cuda=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("__version__ = '2.13.0+cu128'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True),
        ("cuda = None\nhip = '6.4.43484'\n", True),
        ("cuda = '12.6'\n", True),
    ],
)
def test_what_torch_was_built_for_is_read_without_importing_it(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "version.py").write_text(text)
    assert built_for_gpu(tmp_path / "version.py") is expected


def test_without_torch_nothing_is_built_for_a_gpu(tmp_path: Path) -> None:
    assert built_for_gpu(tmp_path / "version.py") is False


def test_hidden_devices_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected() -> bool:
        raise AssertionError("asked although all devices are hidden")

    monkeypatch.setattr(choosing, "built_for_gpu", unexpected)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert choosing.cuda_is_here.__wrapped__() is False


@pytest.mark.parametrize(
    ("dtype", "device", "bf16", "flash", "expected"),
    [
        (None, "cpu", True, False, TorchPlan("bfloat16", None, CPU_BATCH_TOKENS)),
        ("auto", "cpu", False, False, TorchPlan(None, None, CPU_BATCH_TOKENS)),
        ("fp32", "cpu", True, False, TorchPlan(None, "float32", CPU_BATCH_TOKENS)),
        ("bf16", "cpu", False, False, TorchPlan(None, "bfloat16", CPU_BATCH_TOKENS)),
        ("float16", "cpu", True, False, TorchPlan(None, "float16", CPU_BATCH_TOKENS)),
        (None, "cuda:0", True, False, TorchPlan("bfloat16", None, GPU_BATCH_TOKENS)),
        (None, "cuda:0", True, True, TorchPlan("bfloat16", None, GPU_BATCH_TOKENS, "flash_attention_2")),
        (None, "cuda:0", False, False, TorchPlan("float16", None, GPU_BATCH_TOKENS)),
        ("fp32", "cuda:0", True, True, TorchPlan(None, "float32", GPU_BATCH_TOKENS)),
        ("fp16", "cuda", True, True, TorchPlan(None, "float16", GPU_BATCH_TOKENS, "flash_attention_2")),
        (None, "mps", True, False, TorchPlan(None, None, CPU_BATCH_TOKENS)),
    ],
)
def test_how_torch_runs(dtype: str | None, device: str, bf16: bool, flash: bool, expected: TorchPlan) -> None:
    assert torch_plan(dtype, device, bf16=bf16, flash=flash) == expected


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 2000), st.one_of(st.none(), st.integers(1, 16)))
def test_batches_have_every_text_once_and_keep_to_the_budget(lengths: list[int], tokens: int, rows: int | None) -> None:
    found = batches_by_length(lengths, tokens, rows)
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= tokens
        assert rows is None or len(batch) <= rows
    flat = [lengths[place] for batch in found for place in batch]
    assert flat == sorted(flat, reverse=True)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_padding_and_passes_cost_least_together(lengths: list[int]) -> None:
    tokens = 640  # more than all of them padded, so that nothing else divides them

    def cost(batches: Sequence[Sequence[int]]) -> int:
        return sum(len(batch) * max(batch) + tokens // PASS_SHARE for batch in batches)

    ordered = sorted(lengths, reverse=True)
    places = range(1, len(ordered))
    divisions = itertools.chain.from_iterable(itertools.combinations(places, count) for count in range(len(ordered)))
    least = min(
        cost([ordered[start:end] for start, end in itertools.pairwise([0, *cuts, len(ordered)])]) for cuts in divisions
    )
    found = batches_by_length(lengths, tokens)
    assert cost([[lengths[place] for place in batch] for batch in found]) == least


def test_texts_of_two_lengths_are_not_padded_to_the_longer() -> None:
    assert batches_by_length([200, 10] * 5, 2048) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


@given(st.lists(st.integers(0, WINDOW_CHARS + 10), max_size=12))
def test_windows_have_every_text_once_in_order(sizes: list[int]) -> None:
    texts = ["x" * size for size in sizes]
    found = list(text_windows(texts))
    assert [text for _, window in found for text in window] == texts
    assert [start for start, _ in found] == [
        sum(len(window) for _, window in found[:place]) for place in range(len(found))
    ]
    assert all(len(window) == 1 or sum(map(len, window)) <= WINDOW_CHARS for _, window in found)


def test_the_output_of_a_graph_is_taken_only_where_it_is_certain() -> None:
    named, other = frozenset({"last_hidden_state"}), frozenset({"x"})
    assert chosen_output([(frozenset({"pooler_output"}), 2), (other, 3)]) == 1
    assert chosen_output([(other, 3), (named, 3), (other, 2)]) == 1
    for unclear in ([(other, 3), (other, 3)], [(other, 2)], [(other, None)], []):
        with pytest.raises(EngineFailed, match="cannot be determined which"):
            chosen_output(unclear)


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize(
    "modes", [*((mode,) for mode in MODES), ("cls", "max", "mean"), ("weightedmean", "lasttoken")], ids="+".join
)
def test_pooling_is_that_of_sentence_transformers(modes: tuple[Any, ...], tmp_path: Path) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    random = np.random.default_rng(0)
    hidden = random.standard_normal((4, 7, 6), np.float32)
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6, [1] * 6 + [0]])
    expected = Pooling(6, modes)({"token_embeddings": torch.tensor(hidden), "attention_mask": torch.tensor(mask)})
    head = Head(tmp_path, Layout("", "bert", 6, modes))
    found = head(hidden, mask)
    assert head.dimension == found.shape[1] == 6 * len(modes)
    np.testing.assert_allclose(found, expected["sentence_embedding"].numpy(), atol=1e-6)


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize("activation", ["Tanh", "Identity", "ReLU", "Sigmoid"])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_layers_are_those_of_sentence_transformers(activation: str, bias: bool, tmp_path: Path) -> None:
    import torch
    from sentence_transformers.base.modules import Dense as Original

    layer = Original(6, 4, bias=bias, activation_function=getattr(torch.nn, activation)())
    (tmp_path / "2_Dense").mkdir()
    layer.save(str(tmp_path / "2_Dense"))
    head = Head(tmp_path, Layout("", "bert", 6, ("cls",), (Dense("2_Dense", activation),)))
    hidden = np.random.default_rng(0).standard_normal((3, 2, 6), np.float32)
    expected = layer({"sentence_embedding": torch.tensor(hidden[:, 0])})["sentence_embedding"].detach().numpy()
    np.testing.assert_allclose(head(hidden, np.ones((3, 2), np.int64)), expected, atol=1e-6)


def test_the_last_token_of_a_text_without_tokens_is_zeros(tmp_path: Path) -> None:
    head = Head(tmp_path, Layout("", "qwen3", 3, ("lasttoken",)))
    assert head(np.ones((2, 2, 3), np.float32), np.array([[1, 1], [0, 0]])).tolist() == [[1.0] * 3, [0.0] * 3]


def test_a_vector_of_zeros_stays_one_when_it_is_normalised(tmp_path: Path) -> None:
    head = Head(tmp_path, Layout("", "bert", 3, ("mean",), ("normalize",)))
    made = head(np.zeros((1, 2, 3), np.float32), np.ones((1, 2), np.int64))
    assert made.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"], ids=["missing", "empty", "noise", "no weight"]
)
def test_a_dense_layer_without_its_weights_is_refused(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "2_Dense").mkdir()
    if content is not None:
        (tmp_path / "2_Dense" / "model.safetensors").write_bytes(content)
    with pytest.raises(EngineFailed, match="2_Dense"):
        Head(tmp_path, Layout("", "bert", 3, ("mean",), (Dense("2_Dense", "Tanh"),)))
