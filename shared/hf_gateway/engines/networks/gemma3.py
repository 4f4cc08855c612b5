"""Gemma3 as an encoder (EmbeddingGemma) or a causal model: norms around each part, and windows in most layers."""

from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.decoders import Decoder, heads_of
from hf_gateway.engines.networks.rotary import frequencies, settings
from hf_gateway.engines.networks.writer import Node, Writer

PARTS = ("embed_tokens", "layers", "norm")
"""First parts of the names of the network's own tensors."""
BASES = {"full_attention": ("rope_theta", 1_000_000.0), "sliding_attention": ("rope_local_base_freq", 10_000.0)}
"""For each kind of attention: the setting of the base of its rotary positions, and its default."""


def build(config: Config, weights: Weights, writer: Writer) -> Node:
    """Return the token vectors, (r, t, d). Padding has to follow a text.

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
    """
    causal = not config.switch("use_bidirectional_attention")
    config.require(attn_logit_softcapping=None, is_causal=causal)
    hidden, inner, layers = (config.count(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    activation, heads = config.activation("hidden_activation", "gelu_pytorch_tanh"), heads_of(config, 256)
    epsilon, biased = config.number("rms_norm_eps", 1e-6), config.switch("attention_bias")
    decoder = Decoder(writer, weights, hidden, heads, epsilon, from_one=True, biased=biased)
    scale = config.number("query_pre_attn_scalar", 256.0) ** -0.5
    kinds, ids = _kinds(config, layers), writer.input_ids()
    length, biases, turns = config.count("max_position_embeddings"), {}, {}
    for kind in sorted(set(kinds)):
        base = config.number(*BASES[kind])
        scaling = settings(config, kind, older=kind == "full_attention")
        turns[kind] = writer.rotation(frequencies(config, heads.width, base, scaling), length, ids)
        biases[kind] = _bias(config, writer, ids, slides=kind == "sliding_attention", causal=causal)
    value = writer.rows(weights.take("embed_tokens.weight", config.count("vocab_size"), hidden), ids)
    value = writer.scale(value, hidden**0.5)
    for layer, kind in enumerate(kinds):
        name = f"layers.{layer}"
        made = decoder.norm(f"{name}.input_layernorm", value)
        made = decoder.attention(f"{name}.self_attn", made, turns[kind], biases[kind], scale)
        value = writer.add(value, decoder.norm(f"{name}.post_attention_layernorm", made))
        made = decoder.norm(f"{name}.pre_feedforward_layernorm", value)
        made = decoder.feed_forward(f"{name}.mlp", made, inner, activation)
        value = writer.add(value, decoder.norm(f"{name}.post_feedforward_layernorm", made))
    value = decoder.norm("norm", value)
    weights.refuse_rest(PARTS, ())
    return value


def _kinds(config: Config, layers: int) -> tuple[str, ...]:
    """Return the kind of attention of each layer: to all in every sixth by default, within a window in the others."""
    every = config.count("sliding_window_pattern", 6)
    return config.listed("layer_types", BASES, layers) or tuple(
        "sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)
    )


def _bias(config: Config, writer: Writer, ids: Node, *, slides: bool, causal: bool) -> Node:
    """Return the bias of an attention; a window is half before and half after a token, or all before it."""
    window = config.count("sliding_window", 4096) if slides else None
    if causal:
        return writer.distance_bias(ids, None if window is None else window - 1, 0)
    mask = writer.mask_bias(writer.attention_mask())
    return mask if window is None else writer.add(mask, writer.distance_bias(ids, window // 2, window // 2))
