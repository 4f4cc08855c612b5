"""Estimates a model's memory and download from its metadata: weights, key-value cache, files.

Sources: the dtypes of the safetensors format, transformers' configurations (`num_key_value_heads`, `layer_types`,
`sliding_window`, `kv_lora_rank`), and llama.cpp's names of quantisations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hf_gateway.hub.selection import Format, choose_files, formats, pickled, usual_quantisation
from hf_gateway.hub.selection import weights as weights_of
from hf_gateway.values.hub_model import ModelFile, ModelMetadata
from hf_gateway.values.hub_task import hub_tasks

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "I4": 4, "U4": 4,
}  # fmt: skip
OVERHEAD_RATIO = 0.2
"""Share of the weights: activations, buffers, and memory that the allocator does not return."""
RUNTIME_BYTES = 300 * 2**20
"""Bytes of the libraries, once per process."""
DEFAULT_CONTEXT_TOKENS = 4096
"""Context that is assumed if the caller gives none."""
_BYTES_PER_KV = 2
"""Bytes of a value in the cache: engines store 16 bits."""
_MIN_COUNTED_RATIO = 0.5
"""Minimum ratio of the bytes by the Hub's parameter counts to the files' bytes; below it the counts are not used."""
_MAX_LAYERS = 10_000
"""Maximum number of layers in a configuration that is believed."""
_MAX_NUMBER = 10**12
"""Maximum of any number in a configuration that is believed."""
_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForSeq2SeqLM")
TEXT_TO_TEXT = "text2text-generation"
"""Pipeline tag of models that generate text and are for no task here."""
_WITHOUT_CACHE = ("mamba", "linear_attention", "recurrent", "conv", "ssm")


@dataclass(frozen=True)
class Needs:
    """What a model needs, in bytes; None where it cannot be estimated."""

    format: Format | None
    """Format of the weights."""
    weights: int | None
    """Size of the weights in memory."""
    by_dtype: Mapping[str, int]
    """The same by data type, if the Hub counts parameters."""
    context: int
    """Tokens that the key-value cache is estimated for."""
    kv_per_token: int | None
    """Size of the key-value cache per token."""
    kv_cache: int | None
    """Size of the key-value cache for `context` tokens."""
    download: int | None
    """Size of the files: weights of that format, and the small files."""
    total: int | None
    """Total memory: weights, overhead, libraries and cache."""
    total_on_cpu: int | None
    """Total memory without a GPU, where chat in this process turns 16-bit weights into float32 unless it gets a
    `dtype`; a lower bound if the size of the cache is unknown.
    """
    notes: tuple[str, ...] = ()
    """Limitations of the numbers."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def generates_text(metadata: ModelMetadata) -> bool:
    """Return whether the model generates text token by token, and so needs a key-value cache."""
    tag = metadata.pipeline_tag
    task = next((each for each in hub_tasks() if tag in each.hub_names), None)
    if task is not None:
        return task.generates_text
    made = [str(each) for each in _architectures(metadata.config)]
    return bool(metadata.gguf) or tag == TEXT_TO_TEXT or any(each.endswith(_GENERATES) for each in made)


def is_adapter(metadata: ModelMetadata) -> bool:
    """Return whether it is a PEFT adapter, which does not work without its base model."""
    paths = [file.path for file in metadata.files]
    if metadata.library_name == "peft" or "adapter_config.json" in paths:
        return True
    # A model with adapters in folders beside its weights is complete without them.
    whole = any("/" not in file.path and formats([file]) for file in metadata.files)
    return not whole and any(path.endswith("/adapter_config.json") for path in paths)


def base_model(metadata: ModelMetadata) -> str | None:
    """Return the base model of an adapter, from its card, tags or configuration; None if they name none."""
    named = metadata.card_data.get("base_model")
    peft = metadata.config.get("peft")
    tagged = [tag.rpartition(":")[2] for tag in metadata.tags if tag.startswith("base_model:")]
    for each in (
        *(named if isinstance(named, list) else [named]),
        *tagged,
        *(source.get("base_model_name_or_path") for source in (peft, metadata.config) if isinstance(source, dict)),
    ):
        if isinstance(each, str) and each:
            return each
    return None


def wants_config(metadata: ModelMetadata) -> bool:
    """Return whether config.json is needed too: for the size of the key-value cache, or for the kind of model."""
    if not _says_what_it_is(metadata):
        return True
    return generates_text(metadata) and kv_per_token(metadata.config, 1) is None


def _says_what_it_is(metadata: ModelMetadata) -> bool:
    return bool(metadata.pipeline_tag or _architectures(metadata.config) or metadata.gguf)


def _architectures(config: Mapping[str, Any]) -> list[Any]:
    made = config.get("architectures")
    return made if isinstance(made, list) else []


def needs(metadata: ModelMetadata, context: int | None = None) -> Needs:
    """Estimate what a model needs.

    Args:
        metadata: metadata of the model.
        context: tokens in the key-value cache; by default DEFAULT_CONTEXT_TOKENS, or the model's limit if that is
            less.
    """
    notes: list[str] = []
    offered = formats(metadata.files)
    chosen = offered[0] if offered else ("safetensors" if metadata.parameters else None)
    limit = context_limit(metadata)
    tokens = context or min(DEFAULT_CONTEXT_TOKENS, limit or DEFAULT_CONTEXT_TOKENS)
    if limit is not None and tokens > limit:
        notes.append(f"the model's limit is {limit:,} tokens, less than the {tokens:,} asked for")
    weights, by_dtype = _weights(metadata, chosen, notes)
    if is_adapter(metadata):
        base = base_model(metadata)
        notes.append(f"an adapter: {base or 'its base model'} needs its own memory, which is not in these numbers")
        cache, per_token = None, None
    else:
        cache, per_token = _cache(metadata, tokens, notes)
    total = _total(weights, cache)
    wide = _in_float32(metadata, by_dtype, weights) if chosen == "safetensors" else None
    on_cpu = total if wide is None else _total(wide, 2 * (cache or 0))
    download = _download(metadata, chosen)
    return Needs(chosen, weights, by_dtype, tokens, per_token, cache, download, total, on_cpu, tuple(notes))


def _total(weights: int | None, cache: int | None) -> int | None:
    return (
        None if weights is None or cache is None else weights + round(weights * OVERHEAD_RATIO) + RUNTIME_BYTES + cache
    )


def _in_float32(metadata: ModelMetadata, by_dtype: Mapping[str, int], weights: int | None) -> int | None:
    """Return the bytes of weights that chat on a CPU converts to float32; None if nothing is converted."""
    if not generates_text(metadata) or metadata.config.get("quantization_config") or weights is None:
        return None
    if by_dtype:
        narrow = sum(count for dtype, count in by_dtype.items() if dtype in ("F16", "BF16"))
    else:  # without counts: by the configuration, all of the weights or none
        shape = _inner(metadata.config)
        narrow = weights if (shape.get("dtype") or shape.get("torch_dtype")) in ("float16", "bfloat16") else 0
    return weights + narrow if narrow else None


def context_limit(metadata: ModelMetadata) -> int | None:
    """Return the maximum number of tokens in the model's configuration; None if it has none."""
    found = _inner(metadata.config)
    for value in (
        metadata.gguf.get("context_length"),
        *(found.get(name) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")),
    ):
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_NUMBER:
            return value
    return None


def kv_per_token(config: Mapping[str, Any], tokens: int) -> int | None:
    """Return the average bytes per token in a key-value cache with `tokens` tokens.

    Layers with a sliding window store no more tokens than the window, so the average falls with the number of tokens.

    Args:
        config: the model's configuration.
        tokens: number of tokens in the cache.

    Returns:
        Bytes per token; None if the configuration does not have the numbers.
    """
    shape = _inner(config)
    layers = _first(shape, "num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
    heads = _first(shape, "num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads")
    hidden = _first(shape, "hidden_size", "n_embd", "d_model", "dim")
    if layers is None or heads is None or layers > _MAX_LAYERS:
        return None
    per_layer = _per_layer(shape, heads, hidden)
    if per_layer is None:
        return None
    kept = [_kept_tokens(kind, shape, tokens) for kind in _kinds(shape, layers)]
    return -(-sum(kept) * per_layer // tokens)


def _per_layer(shape: Mapping[str, Any], heads: int, hidden: int | None) -> int | None:
    """Return the bytes of one token in the cache of one layer."""
    if (rope := _first(shape, "qk_rope_head_dim")) is not None and _first(shape, "kv_lora_rank") is not None:
        # Latent attention: transformers stores keys and values of all heads, uncompressed.
        keys = heads * (rope + (_first(shape, "qk_nope_head_dim") or 0))
        return (keys + heads * (_first(shape, "v_head_dim") or 0)) * _BYTES_PER_KV
    size = _first(shape, "head_dim", "d_kv") or (hidden // heads if hidden else None)
    if size is None:
        return None
    if shape.get("new_decoder_architecture"):
        shared = heads  # larger Falcons: transformers repeats the shared heads before it stores them
    elif shape.get("multi_query") is True:
        shared = 1  # smaller Falcons, whose configuration also has a number of heads that is not used
    else:
        shared = _first(shape, "num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num") or heads
    return 2 * shared * size * _BYTES_PER_KV


def _kinds(shape: Mapping[str, Any], layers: int) -> list[str]:
    """Return the kind of each layer: full attention, a window, or a state of fixed size."""
    named = shape.get("layer_types") or shape.get("layers_block_type")
    if isinstance(named, list) and len(named) == layers:
        return [str(each) for each in named]
    if not _window(shape):
        return ["full_attention"] * layers
    every = _first(shape, "sliding_window_pattern", "_sliding_window_pattern")
    if every:
        return ["full_attention" if (each + 1) % every == 0 else "sliding_attention" for each in range(layers)]
    if shape.get("model_type") == "gemma2":
        return ["sliding_attention" if each % 2 == 0 else "full_attention" for each in range(layers)]
    if "use_sliding_window" in shape:
        below = _first(shape, "max_window_layers") or 0
        return ["full_attention" if each < below else "sliding_attention" for each in range(layers)]
    return ["sliding_attention"] * layers


def _kept_tokens(kind: str, shape: Mapping[str, Any], tokens: int) -> int:
    if any(part in kind for part in _WITHOUT_CACHE):
        return 0
    window = _first(shape, "attention_chunk_size") if "chunked" in kind else _window(shape)
    return min(tokens, window) if window and ("sliding" in kind or "chunked" in kind) else tokens


def _window(shape: Mapping[str, Any]) -> int | None:
    return None if shape.get("use_sliding_window") is False else _first(shape, "sliding_window")


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the text model inside a multimodal model."""
    for name in ("text_config", "llm_config", "language_config"):
        inner = config.get(name)
        if isinstance(inner, dict) and inner:
            return inner
    return config


def _first(shape: Mapping[str, Any], *names: str) -> int | None:
    return next(
        (
            value
            for name in names
            if isinstance(value := shape.get(name), int) and not isinstance(value, bool) and 0 < value <= _MAX_NUMBER
        ),
        None,
    )


def _weights(metadata: ModelMetadata, chosen: Format | None, notes: list[str]) -> tuple[int | None, dict[str, int]]:
    also = _pickled(metadata, chosen, notes)
    on_disk = _sum([*weights_of(metadata.files, (chosen,)), *also]) if chosen else None
    besides = _sum(also) if also else 0
    if chosen == "gguf" and (usual := usual_quantisation(metadata.files)) is not None:
        notes.append(f"estimated for the quantisation {usual}")
    if chosen != "safetensors" or not metadata.parameters:
        return on_disk, {}
    if unknown := [dtype for dtype in metadata.parameters if dtype not in _BITS]:
        notes.append(f"the size of {', '.join(sorted(unknown))} is unknown; the files' sizes are used")
        return on_disk, {}
    by_dtype = {dtype: count * _BITS[dtype] // 8 for dtype, count in metadata.parameters.items()}
    counted = sum(by_dtype.values())
    if metadata.config.get("quantization_config") and on_disk is not None:
        # Tools count packed values differently.
        notes.append("the weights are quantised; the files' sizes are used")
        return on_disk, by_dtype
    if besides is None:
        return None, by_dtype
    if on_disk is not None and counted < _MIN_COUNTED_RATIO * (on_disk - besides):
        notes.append(f"the Hub's parameter counts come to only {counted:,} bytes; the files' sizes are used")
        return on_disk, {}
    return counted + besides, by_dtype


def _pickled(metadata: ModelMetadata, chosen: Format | None, notes: list[str]) -> list[ModelFile]:
    """Return the weights that exist as pickles only and that the model needs besides those of the chosen format."""
    if chosen not in ("safetensors", "onnx"):
        return []
    found = pickled(metadata.files)
    if found:
        notes.append("weights in pickles only are included in the memory, but not in the download")
    return found


def _cache(metadata: ModelMetadata, tokens: int, notes: list[str]) -> tuple[int | None, int | None]:
    if not _says_what_it_is(metadata):
        notes.append("the kind of model is unknown: neither the Hub nor a config.json names it")
        return None, None
    if not generates_text(metadata):
        return 0, None
    per_token = kv_per_token(metadata.config, tokens)
    if per_token is None:
        notes.append("the size of a key-value cache is unknown: config.json is unreadable or lacks the numbers")
        return None, None
    return per_token * tokens, per_token


def _download(metadata: ModelMetadata, chosen: Format | None) -> int | None:
    """Return the bytes that `download_model` downloads for this format."""
    return _sum(fetched(metadata, chosen)) if chosen else None


def fetched(metadata: ModelMetadata, chosen: Format | None) -> list[ModelFile]:
    """Return the files that `download_model` downloads for a format.

    Args:
        metadata: metadata of the model.
        chosen: format of the weights.
    """
    return choose_files(metadata.files, (chosen,)) if chosen in formats(metadata.files) else []


def _sum(files: Sequence[ModelFile]) -> int | None:
    sizes = [file.size for file in files if file.size is not None]
    return sum(sizes) if sizes and len(sizes) == len(files) else None
