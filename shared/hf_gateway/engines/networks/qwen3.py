"""Qwen3: each token attends to those before it, so that the last one stands for the text."""

from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.decoders import Decoder, heads_of
from hf_gateway.engines.networks.rotary import frequencies, settings
from hf_gateway.engines.networks.writer import Node, Writer

PARTS = ("embed_tokens", "layers", "norm")
"""First parts of the names of the network's own tensors."""
KINDS = ("full_attention", "sliding_attention")
"""Kinds of attention: to all tokens before, and to the next of them."""


def build(config: Config, weights: Weights, writer: Writer) -> Node:
    """Return the token vectors, (r, t, d). Padding has to follow a text, so that no token of it attends to padding.

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
    """
    config.require(is_causal=True, use_bidirectional_attention=False)
    hidden, inner, layers = (config.count(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    activation, heads = config.activation("hidden_act", "silu"), heads_of(config, 128)
    epsilon, biased = config.number("rms_norm_eps", 1e-6), config.switch("attention_bias")
    decoder = Decoder(writer, weights, hidden, heads, epsilon, from_one=False, biased=biased)
    kinds, window = _kinds(config, layers)
    ids = writer.input_ids()
    before = {"full_attention": None, "sliding_attention": window}
    bias = {kind: writer.distance_bias(ids, before[kind], 0) for kind in sorted(set(kinds))}
    angles = frequencies(config, heads.width, config.number("rope_theta", 10_000.0), settings(config))
    rotation = writer.rotation(angles, config.count("max_position_embeddings"), ids)
    value = writer.rows(weights.take("embed_tokens.weight", config.count("vocab_size"), hidden), ids)
    for layer, kind in enumerate(kinds):
        name = f"layers.{layer}"
        normed = decoder.norm(f"{name}.input_layernorm", value)
        value = writer.add(value, decoder.attention(f"{name}.self_attn", normed, rotation, bias[kind]))
        normed = decoder.norm(f"{name}.post_attention_layernorm", value)
        value = writer.add(value, decoder.feed_forward(f"{name}.mlp", normed, inner, activation))
    value = decoder.norm("norm", value)
    weights.refuse_rest(PARTS, ("rotary_emb.inv_freq",))
    return value


def _kinds(config: Config, layers: int) -> tuple[tuple[str, ...], int | None]:
    """Return the kind of attention of each layer, and how far back those with a window attend."""
    slides = config.switch("use_sliding_window")
    first = config.count("max_window_layers", 28) if slides and config.values.get("layer_types") is None else layers
    kinds = config.listed("layer_types", KINDS, layers) or tuple(KINDS[layer >= first] for layer in range(layers))
    if "sliding_attention" not in kinds:
        return kinds, None
    config.require(use_sliding_window=True)
    return kinds, config.count("sliding_window", 4096) - 1
