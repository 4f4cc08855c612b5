"""GTE, which its own code on the Hub calls "new": BERT with rotary positions and gated feed-forward."""

from hf_gateway.engines.networks.blocks import gated, norm, projected, projected_parts, rotary_attention
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.rotary import frequencies, settings
from hf_gateway.engines.networks.writer import Node, Writer


def build(config: Config, weights: Weights, writer: Writer, *, base: float) -> Node:
    """Return the token vectors, (r, t, d).

    Args:
        config: the configuration.
        weights: the tensors, with the names of the files on the Hub.
        writer: builds the graph.
        base: of rotary positions, for a missing setting.
    """
    config.require(position_embedding_type="rope", layer_norm_type="layer_norm", logn_attention_scale=False)
    hidden, inner, layers = (config.count(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads, packed = config.heads("num_attention_heads", hidden), config.switch("pack_qkv", default=True)
    config.require(head_dim=hidden // heads)
    activation, epsilon = config.activation("hidden_act"), config.number("layer_norm_eps", 1e-12)
    ids = writer.input_ids()
    angles = frequencies(config, hidden // heads, config.number("rope_theta", base), settings(config), ntk=True)
    rotation = writer.rotation(angles, config.count("max_position_embeddings"), ids)
    value = _embeddings(config, weights, writer, hidden, epsilon)
    bias = writer.mask_bias(writer.attention_mask())
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        if packed:
            parts = projected_parts(writer, weights, f"{name}.attention.qkv_proj", value, hidden, hidden, 3)
        else:
            names = (f"{name}.attention.{part}_proj" for part in "qkv")
            parts = [projected(writer, weights, each, value, hidden, hidden) for each in names]
        made = rotary_attention(writer, parts, heads, rotation, bias)
        made = projected(writer, weights, f"{name}.attention.o_proj", made, hidden, hidden)
        value = norm(writer, weights, f"{name}.attn_ln", writer.add(made, value), hidden, epsilon)
        raised, gate = projected_parts(writer, weights, f"{name}.mlp.up_gate_proj", value, hidden, inner, 2, bias=False)
        made = gated(writer, gate, raised, activation)
        made = projected(writer, weights, f"{name}.mlp.down_proj", made, inner, hidden)
        value = norm(writer, weights, f"{name}.mlp_ln", writer.add(made, value), hidden, epsilon)
    weights.refuse_rest(("embeddings", "encoder"), ("position_ids", "rotary_emb."))
    return value


def _embeddings(config: Config, weights: Weights, writer: Writer, hidden: int, epsilon: float) -> Node:
    words = weights.take("embeddings.word_embeddings.weight", config.count("vocab_size"), hidden)
    value = writer.rows(words, writer.input_ids())
    if config.values.get("type_vocab_size", 1) != 0:
        types = weights.take("embeddings.token_type_embeddings.weight", config.count("type_vocab_size", 1), hidden)
        value = writer.add(value, writer.rows(types, writer.token_type_ids()))
    return norm(writer, weights, "embeddings.LayerNorm", value, hidden, epsilon)
