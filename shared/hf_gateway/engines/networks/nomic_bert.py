"""NomicBERT: BERT with rotary positions, gated feed-forward, and no biases but those of its norms."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.engines.networks.blocks import gated, norm, projected, projected_parts, rotary_attention
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.rotary import frequencies, settings
from hf_gateway.engines.networks.writer import Node, Writer
from hf_gateway.errors import EngineFailed

NAMES: Mapping[str, str] = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
"""Names of settings in files for the model's own code on the Hub, to those of transformers."""
ABSENT = (
    "prenorm",
    "parallel_block",
    "parallel_block_tied_norm",
    "causal",
    "use_rms_norm",
    "qkv_proj_bias",
    "mlp_fc1_bias",
    "mlp_fc2_bias",
    "rotary_emb_interleaved",
    "scale_attn_by_inverse_layer_idx",
)
"""What that code could do, and these models do not."""
DEFAULT_BASE = 1000.0
"""Base of its rotary positions."""


def standard(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration with transformers' names, where it has those of the model's own code. Raises EngineFailed."""
    made = dict(values)
    for name, usual in NAMES.items():
        if name in values:
            if values.get(usual, values[name]) != values[name]:
                raise EngineFailed(
                    f"its config.json has both {name}={values[name]!r:.60} and {usual}={values[usual]!r:.60}"
                )
            made[usual] = values[name]
    lengths = [values.get(name) for name in ("max_position_embeddings", "n_positions")]
    known = [length for length in lengths if type(length) is int]
    return made | ({"max_position_embeddings": max(known)} if known else {})


def build(config: Config, weights: Weights, writer: Writer) -> Node:
    """Return the token vectors, (r, t, d).

    Args:
        config: the configuration, with transformers' names.
        weights: the tensors, with the names of the files on the Hub.
        writer: builds the graph.
    """
    hidden, inner, layers = (config.count(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads = config.heads("num_attention_heads", hidden)
    activation, epsilon = _check(config, hidden // heads)
    base, scaling = config.number("rope_theta", DEFAULT_BASE), settings(config)
    if "rotary_emb_base" in config.values and scaling.get("rope_theta", base) != base:
        raise EngineFailed(
            f"its config.json has both rotary_emb_base={base} and rope_theta={scaling['rope_theta']!r:.60}"
        )
    ids = writer.input_ids()
    rotation = writer.rotation(
        frequencies(config, hidden // heads, base, scaling), config.count("max_position_embeddings"), ids
    )
    words = weights.take("embeddings.word_embeddings.weight", config.count("vocab_size"), hidden)
    types = weights.take("embeddings.token_type_embeddings.weight", config.count("type_vocab_size", 2), hidden)
    value = writer.add(writer.rows(words, ids), writer.rows(types, writer.token_type_ids()))
    value = norm(writer, weights, "emb_ln", value, hidden, epsilon)
    bias = writer.mask_bias(writer.attention_mask())
    for layer in range(layers):
        name = f"encoder.layers.{layer}"
        parts = projected_parts(writer, weights, f"{name}.attn.Wqkv", value, hidden, hidden, 3, bias=False)
        made = rotary_attention(writer, parts, heads, rotation, bias)
        made = projected(writer, weights, f"{name}.attn.out_proj", made, hidden, hidden, bias=False)
        value = norm(writer, weights, f"{name}.norm1", writer.add(made, value), hidden, epsilon)
        raised, gate = (
            projected(writer, weights, f"{name}.mlp.{part}", value, hidden, inner, bias=False)
            for part in ("fc11", "fc12")
        )
        made = gated(writer, gate, raised, activation)
        made = projected(writer, weights, f"{name}.mlp.fc2", made, inner, hidden, bias=False)
        value = norm(writer, weights, f"{name}.norm2", writer.add(made, value), hidden, epsilon)
    weights.refuse_rest(("embeddings", "emb_ln", "encoder"), ("position_ids", "rotary_emb.inv_freq"))
    return value


def _check(config: Config, width: int) -> tuple[Any, float]:
    """Return the activation of the gates and the epsilon of the norms; refuse what the model's own code could do beside."""
    config.require(
        head_dim=width,
        rotary_emb_scale_base=None,
        rotary_scaling_factor=None,
        scale_attn_weights=True,
        num_experts=None,
    )
    config.require_off(*ABSENT)
    if "n_embd" not in config.values:
        return config.activation("hidden_act", "silu"), config.number("layer_norm_eps", 1e-12)
    given = {name: config.values.get(name) for name in ("activation_function", "rotary_emb_fraction")}
    if given != {"activation_function": "swiglu", "rotary_emb_fraction": 1.0}:
        raise EngineFailed(f"its config.json has {given}, which is not supported here")
    config.require(hidden_act="silu")
    return config.activation("hidden_act", "silu"), config.number("layer_norm_eps", 1e-5)
