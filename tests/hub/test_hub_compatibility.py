"""Whether a model fits, what it needs, who can serve it: from metadata alone, held against what transformers really keeps."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.hub import Compatibility, HubConnector, ModelFile, ModelMetadata
from hf_gateway.hub.compatibility import check_model, compare_needs, format_bytes
from hf_gateway.hub.machine import Gpu, Machine, memory_of, parse_smi
from hf_gateway.hub.needs import RUNTIME_BYTES, Needs, kv_per_token, needs
from hf_gateway.testing import ManualClock
from hf_gateway.wire.hf_router import CatalogueEntry, Offer
from tests.servers.hub import COMMIT, Listed, ReadHub
from tests.servers.loopback import disconnect
from tests.servers.router import LLAMA, FakeRouter

GB = 10**9
ROOMY = Machine(memory=64 * GB, available=60 * GB, disk=500 * GB)
LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}


def model(**fields: Any) -> ModelMetadata:
    said = {
        "id": "org/model",
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "files": (ModelFile("model.safetensors", 16 * GB), ModelFile("config.json", 800)),
        "parameters": {"BF16": 8 * GB},
        "config": LLAMA_CONFIG,
        **fields,
    }
    return ModelMetadata(**said)


# What it needs


CACHES: dict[str, tuple[dict[str, Any], int, int | None]] = {
    "grouped queries": (LLAMA_CONFIG, 4096, 2 * 32 * 8 * 128 * 2),
    "one head for all": (
        {"n_layer": 32, "num_attention_heads": 71, "hidden_size": 4544, "multi_query": True},
        100,
        2 * 32 * 1 * 64 * 2,
    ),
    "a head for each": ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 100, 2 * 12 * 768 * 2),
    "a head size of its own": (LLAMA_CONFIG | {"head_dim": 256}, 10, 2 * 32 * 8 * 256 * 2),
    "a window that is not reached": (LLAMA_CONFIG | {"sliding_window": 4096}, 4096, 131072),
    "a window a quarter as long": (LLAMA_CONFIG | {"sliding_window": 1024}, 4096, 131072 // 4),
    "a window that is switched off": (
        LLAMA_CONFIG | {"sliding_window": 1024, "use_sliding_window": False},
        4096,
        131072,
    ),
    "a window in upper layers": (
        LLAMA_CONFIG | {"sliding_window": 1024, "use_sliding_window": True, "max_window_layers": 16},
        4096,
        131072 // 2 + 131072 // 8,
    ),
    "a window in five layers of six": (
        LLAMA_CONFIG | {"num_hidden_layers": 30, "sliding_window": 1024, "sliding_window_pattern": 6},
        4096,
        2 * 8 * 128 * 2 * (5 * 4096 + 25 * 1024) // 4096,
    ),
    "layers by name": (
        LLAMA_CONFIG
        | {
            "num_hidden_layers": 3,
            "sliding_window": 10,
            "layer_types": ["full_attention", "sliding_attention", "linear_attention"],
        },
        100,
        2 * 8 * 128 * 2 * 110 // 100 + 1,
    ),
    "a model that also sees": ({"text_config": LLAMA_CONFIG, "vision_config": {"num_hidden_layers": 99}}, 10, 131072),
    "latent attention": (
        {
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "hidden_size": 64,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 6,
        },
        10,
        2 * (4 * 12 + 4 * 6) * 2,
    ),
    "heads wider than the model": (
        {"num_layers": 24, "num_heads": 128, "d_kv": 128, "d_model": 1024, "d_ff": 65536},
        512,
        2 * 24 * 128 * 128 * 2,
    ),
    "more layers than there can be": (LLAMA_CONFIG | {"num_hidden_layers": 10**15}, 10, None),
    "numbers of hundreds of digits": (LLAMA_CONFIG | {"head_dim": 10**400, "hidden_size": 10**400}, 10, None),
    "nothing said": ({"model_type": "llama"}, 10, None),
    "nonsense": ({"num_hidden_layers": "32", "num_attention_heads": True}, 10, None),
}


@pytest.mark.parametrize("name", CACHES)
def test_the_bytes_a_token_takes_in_the_key_value_cache(name: str) -> None:
    config, tokens, expected = CACHES[name]
    assert kv_per_token(config, tokens) == expected


_SHAPE = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_SMALL_GPT = {"vocab_size": 32, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}
_SMALL_FALCON = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _SHAPE | {"num_key_value_heads": 2}),
    "llama with its own head size": ("Llama", _SHAPE | {"num_key_value_heads": 1, "head_dim": 16}),
    "qwen2": ("Qwen2", _SHAPE | {"num_key_value_heads": 2}),
    "mistral with a window": ("Mistral", _SHAPE | {"num_key_value_heads": 2, "sliding_window": 8}),
    "gemma2": ("Gemma2", _SHAPE | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}),
    "phi3": ("Phi3", _SHAPE | {"num_key_value_heads": 4, "pad_token_id": 0}),
    "gpt2": ("GPT2", _SMALL_GPT),
    "gpt_bigcode": ("GPTBigCode", _SMALL_GPT | {"multi_query": True}),
    "falcon": ("Falcon", _SMALL_FALCON | {"multi_query": True}),
    "falcon of the second kind": ("Falcon", _SMALL_FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
}


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize("name", REAL)
def test_transformers_keeps_as_much_as_is_reckoned(name: str) -> None:
    import torch
    import transformers

    family, shape = REAL[name]
    config = getattr(transformers, f"{family}Config")(**shape)
    network = transformers.AutoModelForCausalLM.from_config(config)
    tokens = 32
    with torch.no_grad():
        kept = network(torch.ones((1, tokens), dtype=torch.long), use_cache=True).past_key_values
    numbers = sum(layer.keys.numel() + layer.values.numel() for layer in kept.layers)
    reckoned = kv_per_token(json.loads(config.to_json_string()), tokens)
    assert reckoned is not None
    # A layer with a window keeps one token less than its window, since the next one takes its place.
    one_token = sum(2 * layer.keys.shape[1] * layer.keys.shape[3] for layer in kept.layers)
    assert 0 <= reckoned * tokens / 2 - numbers <= one_token


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"F32": 100}, 400),
        ({"BF16": 100, "F32": 10}, 240),
        ({"F8_E4M3": 100, "I8": 5}, 105),
        ({"F64": 2, "BOOL": 3, "I64": 1}, 27),
        ({"F4": 100}, 50),
    ],
)
def test_weights_are_reckoned_by_dtype(parameters: dict[str, int], expected: int) -> None:
    found = needs(model(parameters=parameters, files=(ModelFile("model.safetensors", expected + 8),)))
    assert found.weights == sum(found.by_dtype.values()) == expected
    assert found.total == expected + round(expected * 0.2) + RUNTIME_BYTES + (found.kv_cache or 0)


def test_the_context_is_what_was_asked_for_or_what_the_model_takes() -> None:
    assert (needs(model()).context, needs(model()).kv_cache) == (4096, 4096 * 131072)
    short = model(config=LLAMA_CONFIG | {"max_position_embeddings": 512})
    assert needs(short).context == 512
    long = needs(short, 1000)
    assert long.context == 1000
    assert "limit is 512 tokens, less than the 1,000 asked for" in long.notes[0]


SIZES: dict[str, tuple[dict[str, Any], int | None, str]] = {
    "a dtype nobody knows": ({"parameters": {"Q9": 5}}, 16 * GB, "the size of Q9 is unknown"),
    "quantised, packed in some way": (
        {
            "config": LLAMA_CONFIG | {"quantization_config": {"quant_method": "gptq"}},
            "parameters": {"I32": 1, "F16": 2},
        },
        16 * GB,
        "quantised",
    ),
    "counts that are far too small": ({"parameters": {"F32": 100}}, 16 * GB, "come to only 400 bytes"),
    "a module in a pickle": (
        {
            "files": (ModelFile("model.safetensors", 2 * GB), ModelFile("2_Dense/pytorch_model.bin", GB)),
            "parameters": {"F32": GB // 2},
        },
        3 * GB,
        "in pickles only",
    ),
    "a pickle beside a module": (
        {
            "files": (ModelFile("pytorch_model.bin", 60 * GB), ModelFile("2_Dense/model.safetensors", 4)),
            "parameters": {"F32": 1},
        },
        60 * GB + 4,
        "in pickles only",
    ),
    "a pickle of a size that nobody says": (
        {
            "files": (ModelFile("pytorch_model.bin"), ModelFile("2_Dense/model.safetensors", 4)),
            "parameters": {"F32": 1},
        },
        None,
        "in pickles only",
    ),
    "a pickle, and an export of it": (
        {
            "pipeline_tag": "sentence-similarity",
            "files": (ModelFile("pytorch_model.bin", 2 * GB), ModelFile("onnx/model.onnx", GB)),
            "parameters": {},
        },
        GB,
        "",
    ),
    "pickles beside the same in safetensors, and other forms": (
        {
            "files": (
                ModelFile("model.safetensors", 2 * GB),
                ModelFile("pytorch_model.bin", 2 * GB),
                ModelFile("original/consolidated.00.pth", 2 * GB),
                ModelFile("original/model.safetensors", 2 * GB),
                ModelFile("metal/model.bin", 2 * GB),
                ModelFile("jax/flax_model.msgpack", 2 * GB),
                ModelFile("coreml/m.mlpackage/Data/weights/weight.bin", 2 * GB),
            ),
            "parameters": {},
        },
        2 * GB,
        "",
    ),
    "the same pickles for three libraries": (
        {
            "files": (
                ModelFile("pytorch_model.bin", 7),
                ModelFile("tf_model.h5", 8),
                ModelFile("flax_model.msgpack", 9),
            ),
            "parameters": {},
        },
        7,
        "",
    ),
    "no safetensors, pickles": (
        {"files": (ModelFile("pytorch_model.bin", 7 * GB), ModelFile("training_args.bin", 5)), "parameters": {}},
        7 * GB,
        "",
    ),
    "sizes that nobody says": ({"files": (ModelFile("model.safetensors"),), "parameters": {}}, None, ""),
    "no files at all": ({"files": (), "parameters": {}}, None, ""),
    "the same weights twice": (
        {
            "files": (
                ModelFile("consolidated.safetensors", 14 * GB),
                ModelFile("model-00001-of-00001.safetensors", 14 * GB),
            ),
            "parameters": {},
        },
        14 * GB,
        "",
    ),
    "GGUF files": (
        {
            "files": (
                ModelFile("m-Q8_0.gguf", 9 * GB),
                ModelFile("m-Q4_K_M-00001-of-00002.gguf", 3 * GB),
                ModelFile("m-Q4_K_M-00002-of-00002.gguf", 2 * GB),
                ModelFile("mmproj-m-F16.gguf", GB),
            ),
            "parameters": {},
        },
        5 * GB,
        "the quantisation Q4_K_M",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_where_the_dtypes_do_not_tell_the_files_do(name: str) -> None:
    fields, expected, said = SIZES[name]
    found = needs(model(**fields))
    assert found.weights == expected
    assert said in " ".join(found.notes)


def test_a_model_that_makes_no_text_keeps_no_cache() -> None:
    found = needs(model(pipeline_tag="sentence-similarity", config={"architectures": ["BertModel"]}))
    assert (found.kv_cache, found.kv_per_token) == (0, None)
    assert found.total is not None


def test_a_model_of_which_nothing_is_known_is_not_taken_for_one_without_a_cache() -> None:
    found = needs(model(pipeline_tag=None, config={}))
    assert (found.kv_cache, found.total) == (None, None)
    assert "the kind of model" in found.notes[0]


# The verdict


def need(total: int | None, **fields: Any) -> Needs:
    return dataclasses.replace(Needs("safetensors", 5 * GB, {}, 4096, 1, 1, 6 * GB, total, total), **fields)


def room(memory: int | None, available: int | None, **fields: Any) -> Machine:
    return Machine(memory, available, **{"disk": 500 * GB, **fields})


GPU = Gpu("NVIDIA H200", 140 * GB, 130 * GB)
VERDICTS: dict[str, tuple[Needs, Machine, str, str]] = {
    "plenty": (need(10 * GB), room(64 * GB, 60 * GB), "fits", "needs 10.0 GB of 60.0 GB available"),
    "four fifths is still fine": (need(8 * GB), room(10 * GB, 10 * GB), "fits", ""),
    "a little more is tight": (need(8 * GB + 1), room(10 * GB, 10 * GB), "tight", ""),
    "all of it is tight": (need(10 * GB), room(10 * GB, 10 * GB), "tight", ""),
    "more than there is": (need(10 * GB + 1), room(10 * GB, 10 * GB), "too_big", "needs 10.0 GB of 10.0 GB"),
    "in use by others just now": (need(7 * GB), room(10 * GB, 3 * GB), "tight", "are available now"),
    "too big though others made room": (need(9 * GB), room(10 * GB, 3 * GB), "too_big", ""),
    "memory unknown": (need(GB), room(None, None), "unknown", "memory of this machine is unknown"),
    "available unknown": (need(GB), room(10 * GB, None), "fits", ""),
    "weights unknown": (need(None, weights=None), ROOMY, "unknown", "size of the weights"),
    "cache unknown, room for the weights": (need(None), ROOMY, "unknown", "there is room for the weights"),
    "cache unknown, no room for the weights": (need(None), room(4 * GB, 4 * GB), "too_big", ""),
    "no disk": (
        need(GB),
        room(64 * GB, 60 * GB, disk=5 * GB),
        "too_big",
        "the download is 6.0 GB, and the disk has 5.0 GB",
    ),
    "disk unknown": (need(GB), room(64 * GB, 60 * GB, disk=None), "fits", ""),
    "a GPU that has room": (
        need(100 * GB),
        room(64 * GB, 60 * GB, gpus=(GPU,)),
        "fits",
        "free on the GPU (NVIDIA H200)",
    ),
    "a GPU without, memory with": (
        need(10 * GB),
        room(64 * GB, 60 * GB, gpus=(Gpu("small", 4 * GB, 4 * GB),)),
        "fits",
        "too_big: needs 10.0 GB of the 4.0 GB free on the GPU",
    ),
}


def test_chat_in_16_bits_takes_twice_as_much_where_there_is_no_gpu() -> None:
    found = needs(model())
    wide = 2 * found.by_dtype["BF16"]
    assert found.total_on_cpu == wide + round(0.2 * wide) + RUNTIME_BYTES + 2 * (found.kv_cache or 0)
    assert compare_needs(found, room(32 * GB, 30 * GB))[0] == "too_big"
    assert "with dtype='bfloat16' it would be 20.1 GB" in compare_needs(found, room(64 * GB, 60 * GB))[1][0]
    assert compare_needs(found, room(32 * GB, 30 * GB, gpus=(Gpu("small", 40 * GB, 40 * GB),)))[0] == "fits"
    of_unknown_shape = needs(model(config={"architectures": ["LlamaForCausalLM"]}))
    assert compare_needs(of_unknown_shape, room(25 * GB, 20 * GB))[0] == "too_big"
    assert compare_needs(of_unknown_shape, room(64 * GB, 60 * GB))[0] == "unknown"
    embedder = needs(model(pipeline_tag="feature-extraction"))
    assert embedder.total_on_cpu == embedder.total


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_with_its_numbers(name: str) -> None:
    needed, machine, expected, said = VERDICTS[name]
    verdict, reasons = compare_needs(needed, machine)
    assert verdict == expected
    assert said in "; ".join(reasons)


def test_what_is_downloaded_already_needs_no_room_on_the_disk() -> None:
    assert compare_needs(need(GB), room(64 * GB, 60 * GB, disk=0), here=6 * GB)[0] == "fits"
    verdict, reasons = compare_needs(need(GB), room(64 * GB, 60 * GB, disk=0), here=4 * GB)
    assert verdict == "too_big"
    assert "what is missing of the download is 2.0 GB" in reasons[-1]


def test_weights_that_nobody_counted_are_widened_without_a_gpu_too() -> None:
    narrow = needs(model(parameters={}, config=LLAMA_CONFIG | {"torch_dtype": "bfloat16"}))
    assert narrow.total_on_cpu == needs(model()).total_on_cpu
    wide = needs(model(parameters={}, config=LLAMA_CONFIG | {"torch_dtype": "float32"}))
    assert wide.total_on_cpu == wide.total


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (16_060_522_496, "16.1 GB"),
        (999_600_000, "1.0 GB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_bytes_are_said_as_people_do(count: int | None, said: str) -> None:
    assert format_bytes(count) == said


# This machine


@pytest.fixture
def root(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    def write(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return write


MEMINFO = {"proc/meminfo": "MemTotal:       1000 kB\nMemFree:  5 kB\nMemAvailable:    800 kB\n"}
KB = 1024
GROUPS: dict[str, tuple[dict[str, str], tuple[int, int]]] = {
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, (1000 * KB, 800 * KB)),
    "cgroup v2": (
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{500 * KB}",
            "sys/fs/cgroup/memory.current": f"{100 * KB}",
        },
        (500 * KB, 400 * KB),
    ),
    "cgroup v2, files in memory may go": (
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{500 * KB}",
            "sys/fs/cgroup/memory.current": f"{400 * KB}",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {300 * KB}\n",
        },
        (500 * KB, 400 * KB),
    ),
    "cgroup v2, the limit is further up": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": f"{300 * KB}",
            "sys/fs/cgroup/a/memory.current": "0",
            "sys/fs/cgroup/a/b/memory.max": "max",
        },
        (300 * KB, 300 * KB),
    ),
    "cgroup v1": (
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/1\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{200 * KB}",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{50 * KB}",
        },
        (200 * KB, 150 * KB),
    ),
    "cgroup v1 without a limit": (
        {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
        (1000 * KB, 800 * KB),
    ),
    "a limit above what there is": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{5000 * KB}", "sys/fs/cgroup/memory.current": "0"},
        (1000 * KB, 800 * KB),
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_containers_limit_is_this_machines_memory(name: str, root: Callable[[dict[str, str]], Path]) -> None:
    files, expected = GROUPS[name]
    assert memory_of(root(MEMINFO | files)) == expected


def test_without_those_files_the_system_is_asked(tmp_path: Path) -> None:
    total, _ = memory_of(tmp_path)
    assert total is None or total > 10**8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVIDIA H200, 143771, 143204\n", (Gpu("NVIDIA H200", 143771 << 20, 143204 << 20),)),
        ("A, 10, 5\nB, C, 20, 6\n", (Gpu("A", 10 << 20, 5 << 20), Gpu("B, C", 20 << 20, 6 << 20))),
        ("NVIDIA GB10, [N/A], [N/A]\n", ()),
        ("NVIDIA-SMI has failed because it couldn't communicate\n", ()),
        ("", ()),
    ],
)
def test_what_nvidia_smi_prints_is_read(text: str, expected: tuple[Gpu, ...]) -> None:
    assert parse_smi(text) == expected


# Who can serve it, and what stands in the way


def judged(metadata: ModelMetadata, entry: CatalogueEntry | None = None, **named: Any) -> Compatibility:
    return check_model(metadata, needs(metadata), ROOMY, entry, **named)


def served(found: Compatibility) -> dict[str, bool | None]:
    return {each.target: each.serves for each in found.targets}


def test_hosted_providers_are_named_with_their_prices() -> None:
    rows = (
        {"provider": "novita", "status": "live", "task": "conversational"},
        {"provider": "nebius", "status": "staging", "task": "conversational"},
        {"provider": "together", "status": "live", "task": "feature-extraction"},
        {"provider": "groq", "status": "live", "task": "conversational"},
    )
    entry = CatalogueEntry(
        "org/model",
        ("text",),
        (Offer("novita", price_in=0.02, price_out=0.04), Offer("cerebras", price_in=0.1, price_out=0.1)),
    )
    found = judged(model(providers=rows), entry)
    hosted = {target: serves for target, serves in served(found).items() if target.startswith("hf:")}
    assert hosted == {"hf:novita": True, "hf:nebius": False, "hf:together": False, "hf:groq": True, "hf:cerebras": True}
    prices = {each.target: (each.price_in, each.price_out) for each in found.targets}
    assert prices["hf:novita"] == (0.02, 0.04)
    assert prices["hf:groq"] == (None, None)
    (groq,) = [each for each in found.targets if each.target == "hf:groq"]
    assert "price unknown" in groq.why


def test_embeddings_are_hosted_only_where_they_can_be_called() -> None:
    rows = [
        {"provider": each, "status": "live", "task": "feature-extraction"} for each in ("hf-inference", "nobody-knows")
    ]
    found = judged(
        model(pipeline_tag="feature-extraction", config={"architectures": ["BertModel"]}, providers=tuple(rows))
    )
    assert (served(found)["hf:hf-inference"], served(found)["hf:nobody-knows"]) == (True, False)


def test_gguf_files_are_for_ollama() -> None:
    files = (ModelFile("m-Q4_K_M.gguf", 5 * GB), ModelFile("m-Q8_0.gguf", 9 * GB))
    found = judged(model(files=files, parameters={}, gguf={"total": 8 * GB, "context_length": 8192}))
    assert served(found)["ollama:hf.co/org/model:Q4_K_M"] is True
    (ollama,) = [each for each in found.targets if each.target.startswith("ollama")]
    assert "there are Q4_K_M 5.0 GB, Q8_0 9.0 GB" in ollama.why
    assert served(found)["local:org/model"] is False


PROBLEMS: dict[str, tuple[dict[str, Any], str, bool | None]] = {
    "gated": ({"gated": "manual"}, "accept its licence at https://huggingface.co/org/model", True),
    "private": ({"private": True}, "private", True),
    "disabled": ({"disabled": True}, "has disabled", True),
    "code of its own": ({"config": LLAMA_CONFIG | {"auto_map": {"AutoModel": "x.Y"}}}, "runs Python code", False),
    "code of its own, by its tag": ({"tags": ("custom_code",)}, "runs Python code", False),
    "pickles": ({"files": (ModelFile("pytorch_model.bin", 5),), "parameters": {}}, "in pickles only", False),
    "the model in a pickle, and a module that is in none": (
        {"files": (ModelFile("pytorch_model.bin", 5), ModelFile("2_Dense/model.safetensors", 4)), "parameters": {}},
        "when they are loaded: pytorch_model.bin; a download leaves them out",
        False,
    ),
    "a module in a pickle": (
        {
            "pipeline_tag": "sentence-similarity",
            "files": (ModelFile("model.safetensors", 5), ModelFile("2_Dense/pytorch_model.bin", 4)),
            "parameters": {},
        },
        "when they are loaded: 2_Dense/pytorch_model.bin; a download leaves them out",
        False,
    ),
    "a pickle in a folder that chat does not read": (
        {"files": (ModelFile("model.safetensors", 5), ModelFile("runs/x.pt", 4)), "parameters": {}},
        "when they are loaded: runs/x.pt",
        True,
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_stands_in_the_way_is_said(name: str) -> None:
    fields, said, local = PROBLEMS[name]
    found = judged(model(**fields))
    assert said in "; ".join(found.problems)
    assert served(found)["local:org/model"] is local


COPIES: dict[str, tuple[str, ...]] = {
    "an export": ("pytorch_model.bin", "onnx/model.onnx"),
    "the author's own form": ("model.safetensors", "original/consolidated.00.pth"),
    "another library's": ("model.safetensors", "tf/tf_model.h5"),
    "GGUF": ("gguf/m-Q4_K_M.gguf", "pytorch_model.bin"),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_pickle_that_is_a_copy_stands_in_nobodys_way(name: str) -> None:
    files = tuple(ModelFile(path, 5) for path in COPIES[name])
    found = judged(model(pipeline_tag="sentence-similarity", files=files, parameters={}, gguf={"total": 5}))
    assert (found.problems, found.pickles_only, found.needs.weights) == ((), False, 5)


ADAPTER = (ModelFile("adapter_model.safetensors", 84_000_000), ModelFile("adapter_config.json", 600))
ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "by its files, the base in the card": ({"card_data": {"base_model": "x/base-123B"}}, "x/base-123B"),
    "the base in a list of the card": ({"card_data": {"base_model": ["x/base-123B"]}}, "x/base-123B"),
    "the base in a tag": ({"tags": ("base_model:adapter:x/base-123B",)}, "x/base-123B"),
    "the base in the configuration": ({"config": {"peft": {"base_model_name_or_path": "x/base-123B"}}}, "x/base-123B"),
    "by its library, the base nowhere": (
        {"library_name": "peft", "files": ADAPTER[:1]},
        "an unnamed model",
    ),
    "in a folder": (
        {"files": tuple(ModelFile(f"last/{each.path}", each.size) for each in ADAPTER)},
        "an unnamed model",
    ),
    "nonsense for a base": ({"card_data": {"base_model": 5}, "config": {"peft": 5}}, "an unnamed model"),
}


@pytest.mark.parametrize("task", ["text-generation", "sentence-similarity"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_does_not_fit_by_its_own_size(name: str, task: str) -> None:
    fields, said = ADAPTERS[name]
    found = judged(
        model(**{"pipeline_tag": task, "files": ADAPTER, "parameters": {"F32": 21_000_000}, "config": {}, **fields})
    )
    assert (found.verdict, found.ok, found.needs.total) == ("unknown", False, None)
    assert said in found.reasons[0]
    assert any("adapter" in each for each in found.problems)
    assert served(found)["local:org/model"] is None


def test_a_model_with_adapters_beside_its_weights_is_none() -> None:
    beside = tuple(ModelFile(f"vision-lora/{each.path}", each.size) for each in ADAPTER)
    assert judged(model(files=(*model().files, *beside))).verdict == "fits"


def test_what_a_search_does_not_say_of_the_files_is_not_taken_for_none() -> None:
    found = judged(model(complete=False, files=()))
    assert (served(found)["local:org/model"], served(found)["ollama"], found.pickles_only) == (None, None, None)
    empty = judged(model(files=()))
    assert (served(empty)["local:org/model"], served(empty)["ollama"]) == (False, False)


@pytest.mark.parametrize(
    "config",
    [{"architectures": 5}, {"architectures": [5]}, {"text_config": 5, "num_hidden_layers": "x"}, {"auto_map": 5}],
)
def test_a_config_of_odd_values_is_one_that_says_nothing(config: dict[str, Any]) -> None:
    assert judged(model(pipeline_tag=None, config=config)).verdict in ("fits", "unknown")


def test_nothing_stands_in_the_way_of_an_ordinary_model() -> None:
    found = judged(model(gated=False))
    assert (found.problems, found.remote_code, found.pickles_only, found.ok) == ((), False, False, True)


@pytest.mark.parametrize(
    ("library", "matches", "said"),
    [
        ("transformers", True, ""),
        ("sentence-transformers", True, ""),
        ("sentence_transformers", True, ""),
        ("peft", False, "the model is for transformers, not peft"),
        ("no-such-library", False, "no-such-library is not installed here"),
    ],
)
def test_the_library_that_is_required_must_be_the_models(library: str, matches: bool, said: str) -> None:
    found = judged(model(tags=("sentence-transformers",)), required_library=library)
    assert found.library_matches is matches
    assert said in "; ".join(found.problems)
    assert found.ok is matches


def test_a_task_that_no_gateway_has_is_none_of_ours() -> None:
    found = judged(model(pipeline_tag="automatic-speech-recognition"))
    assert found.task is None
    assert served(found)["local:org/model"] is False


# From one end to the other


CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadHub]:
    chat = Listed(
        CHAT, pipeline_tag="text-generation", library_name="transformers", tags=(), parameters={"F32": 398_000}
    )
    embedder = Listed(
        declared={"model.safetensors": 400}, parameters={"F32": 100}, config={"architectures": ["BertModel"]}
    )
    large = Listed(
        declared={"model.safetensors": 10**15}, parameters={"F32": 25 * 10**13}, config={"architectures": ["BertModel"]}
    )
    gated = Listed(
        CHAT, gated="auto", pipeline_tag="text-generation", config={"architectures": ["X"]}, parameters={"F32": 9}
    )
    models = {"a/chat": chat, "a/embedder": embedder, "a/large": large, "a/gated": gated, LLAMA: chat}
    with ReadHub(models) as server, FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        yield server


@pytest.fixture
def connector(hub: ReadHub, tmp_path: Path) -> Iterator[HubConnector]:
    with HubConnector(endpoint=hub.url, cache=tmp_path / "cache", clock=ManualClock()) as made:
        yield made


def test_the_shape_is_read_from_the_config_and_no_weights_are_touched(hub: ReadHub, connector: HubConnector) -> None:
    found = connector.check_compatibility("a/chat")
    assert (found.verdict, found.task) == ("fits", "chat")
    assert (found.needs.by_dtype, found.needs.kv_per_token) == ({"F32": 1_592_000}, 2 * 3 * 2 * 24 * 2)
    assert found.needs.context == 4096
    resolved = [request.path for request in hub.requests if "/resolve" in request.path]
    assert resolved
    assert all(path.endswith("/config.json") for path in resolved)
    json.dumps(found.to_dict())


def test_offline_the_same_is_said_from_the_cache(hub: ReadHub, connector: HubConnector, tmp_path: Path) -> None:
    online = connector.check_compatibility("a/chat", context=100)
    hub.always(disconnect())
    offline = HubConnector(endpoint=hub.url, cache=tmp_path / "cache", environment={"HF_HUB_OFFLINE": "1"})
    found = offline.check_compatibility("a/chat", context=100)
    assert (found.needs, found.verdict, found.sha) == (online.needs, online.verdict, online.sha)


def test_the_routers_prices_are_read(hub: ReadHub, connector: HubConnector) -> None:
    found = connector.check_compatibility(LLAMA)
    prices = {each.target: (each.price_in, each.price_out) for each in found.targets}
    assert prices["hf:novita"] == (0.02, 0.04)


def test_an_embedding_model_needs_no_config(hub: ReadHub, connector: HubConnector) -> None:
    found = connector.check_compatibility("a/embedder", required_library="sentence-transformers")
    assert (found.task, found.needs.kv_cache, found.library_matches) == ("embedding", 0, True)
    assert not any("/resolve" in request.path for request in hub.requests)


def test_what_is_larger_than_any_machine_is_too_big(connector: HubConnector) -> None:
    found = connector.check_compatibility("a/large")
    assert (found.verdict, found.ok) == ("too_big", False)
    assert any("disk" in reason for reason in found.reasons)


def test_a_download_that_is_there_in_part_needs_room_for_the_rest(
    connector: HubConnector, hub: ReadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_gateway.hub import cached_files

    monkeypatch.setattr(cached_files, "default_cache", lambda: tmp_path / "files")
    usage = shutil.disk_usage("/")._replace(free=50)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    shards = {f"model-0000{each}-of-00002.safetensors": 200 for each in (1, 2)}
    hub.models = {"a/parts": Listed(declared=shards, parameters={"F32": 100}, config={"architectures": ["BertModel"]})}
    snapshot = tmp_path / "files" / "models--a--parts" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    expected = ["the download is 400 B", "what is missing of the download is 200 B"]
    for name, said in zip(shards, expected, strict=True):
        found = connector.check_compatibility("a/parts")
        assert found.verdict == "too_big"
        assert said in found.reasons[-1]
        (snapshot / name).write_bytes(b"cut off")
        assert said in connector.check_compatibility("a/parts").reasons[-1]
        (snapshot / name).write_bytes(bytes(200))
    assert connector.check_compatibility("a/parts").verdict == "fits"


def test_a_model_that_was_only_searched_for_is_judged_offline_by_what_is_known(
    connector: HubConnector, hub: ReadHub, tmp_path: Path
) -> None:
    connector.search_models("embedder")
    offline = HubConnector(endpoint=hub.url, cache=tmp_path / "cache", environment={"HF_HUB_OFFLINE": "1"})
    found = offline.check_compatibility("a/embedder")
    assert (served(found)["local:a/embedder"], served(found)["ollama"]) == (None, None)


def test_a_gated_models_config_is_not_to_be_had_and_the_verdict_says_so(connector: HubConnector) -> None:
    found = connector.check_compatibility("a/gated")
    assert found.verdict == "unknown"
    assert found.gated == "auto"
    assert any("config.json is unreadable" in note for note in found.needs.notes)


async def test_an_unknown_model_and_a_context_that_is_none_are_errors(connector: HubConnector) -> None:
    with pytest.raises(errors.ModelNotFound):
        await connector.acheck_compatibility("a/none")
    for context in (0, 10**400):
        with pytest.raises(ValueError, match="number of tokens"):
            await connector.acheck_compatibility("a/chat", context=context)
    assert (await connector.acheck_compatibility("a/chat")).ok
    await connector.aclose()
