"""ModernBERT: rotary positions, norms before each part, gated feed-forward, and attention to neighbours alone in most layers."""

from hf_gateway.engines.networks.blocks import gated, norm, projected, projected_parts, rotary_attention
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.rotary import frequencies, settings
from hf_gateway.engines.networks.writer import Node, Writer

BASES = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}
"""For each kind of attention: the setting of the base of its rotary positions, and its default."""


def build(config: Config, weights: Weights, writer: Writer) -> Node:
    """Return the token vectors, (r, t, d).

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
    """
    hidden, inner, layers = (config.count(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads = config.heads("num_attention_heads", hidden)
    config.require(head_dim=hidden // heads)
    epsilon, activation = config.number("norm_eps", 1e-5), config.activation("hidden_activation")
    shifted, biased, thick = (config.switch(name) for name in ("norm_bias", "attention_bias", "mlp_bias"))
    kinds = _kinds(config, layers)
    ids = writer.input_ids()
    mask = writer.mask_bias(writer.attention_mask())
    reach = config.count("local_attention", 128) // 2
    bias = {"full_attention": mask, "sliding_attention": writer.add(mask, writer.distance_bias(ids, reach, reach))}
    length, turns = config.count("max_position_embeddings"), {}
    for kind in sorted(set(kinds)):
        base = config.number(*BASES[kind])
        turns[kind] = writer.rotation(frequencies(config, hidden // heads, base, settings(config, kind)), length, ids)
    value = writer.rows(weights.take("embeddings.tok_embeddings.weight", config.count("vocab_size"), hidden), ids)
    value = norm(writer, weights, "embeddings.norm", value, hidden, epsilon, bias=shifted)
    for layer, kind in enumerate(kinds):
        name, normed = f"layers.{layer}", value
        if layer:
            normed = norm(writer, weights, f"{name}.attn_norm", value, hidden, epsilon, bias=shifted)
        parts = projected_parts(writer, weights, f"{name}.attn.Wqkv", normed, hidden, hidden, 3, bias=biased)
        attended = rotary_attention(writer, parts, heads, turns[kind], bias[kind])
        value = writer.add(value, projected(writer, weights, f"{name}.attn.Wo", attended, hidden, hidden, bias=biased))
        normed = norm(writer, weights, f"{name}.mlp_norm", value, hidden, epsilon, bias=shifted)
        gate, raised = projected_parts(writer, weights, f"{name}.mlp.Wi", normed, hidden, inner, 2, bias=thick)
        made = gated(writer, gate, raised, activation)
        value = writer.add(value, projected(writer, weights, f"{name}.mlp.Wo", made, inner, hidden, bias=thick))
    value = norm(writer, weights, "final_norm", value, hidden, epsilon, bias=shifted)
    weights.refuse_rest(("embeddings", "layers", "final_norm"), ())
    return value


def _kinds(config: Config, layers: int) -> tuple[str, ...]:
    """Return the kind of attention of each layer: to all in every third by default, to neighbours in the others."""
    every = config.count("global_attn_every_n_layers", 3)
    return config.listed("layer_types", BASES, layers) or tuple(
        "sliding_attention" if layer % every else "full_attention" for layer in range(layers)
    )
