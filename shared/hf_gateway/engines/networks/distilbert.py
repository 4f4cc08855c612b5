"""DistilBERT."""

from hf_gateway.engines.networks.blocks import feed_forward, norm, projected
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.writer import Node, Writer

EPSILON = 1e-12
"""Of its layer norms, which no setting changes."""


def build(config: Config, weights: Weights, writer: Writer) -> Node:
    """Return the token vectors, (r, t, d).

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
    """
    config.require(chunk_size_feed_forward=0)
    hidden, inner = config.count("dim"), config.count("hidden_dim")
    heads = config.heads("n_heads", hidden)
    activation = config.activation("activation")
    ids = writer.input_ids()
    words = weights.take("embeddings.word_embeddings.weight", config.count("vocab_size"), hidden)
    places = weights.take("embeddings.position_embeddings.weight", config.count("max_position_embeddings"), hidden)
    value = writer.add(writer.rows(words, ids), writer.rows(places, writer.positions(ids)))
    value = norm(writer, weights, "embeddings.LayerNorm", value, hidden, EPSILON)
    bias = writer.mask_bias(writer.attention_mask())
    for layer in range(config.count("n_layers")):
        name = f"transformer.layer.{layer}"
        query, key, content = (
            projected(writer, weights, f"{name}.attention.{part}", value, hidden, hidden)
            for part in ("q_lin", "k_lin", "v_lin")
        )
        attended = projected(
            writer,
            weights,
            f"{name}.attention.out_lin",
            writer.attention(query, key, content, bias, heads),
            hidden,
            hidden,
        )
        value = norm(writer, weights, f"{name}.sa_layer_norm", writer.add(attended, value), hidden, EPSILON)
        made = feed_forward(writer, weights, (f"{name}.ffn.lin1", f"{name}.ffn.lin2"), value, hidden, inner, activation)
        value = norm(writer, weights, f"{name}.output_layer_norm", writer.add(made, value), hidden, EPSILON)
    weights.refuse_rest(("embeddings", "transformer"), ("position_ids",))
    return value
