"""BERT and those with its structure and names: RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA."""

from hf_gateway.engines.networks.blocks import feed_forward, norm, projected
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.writer import Node, Writer

PARTS = ("embeddings", "encoder")
"""First parts of the names of the network's own tensors; the pooler is not used."""
UNUSED = ("position_ids", "token_type_ids")
"""Parts of names of tensors that contain no weights."""


def build(config: Config, weights: Weights, writer: Writer, *, pad: int | None) -> Node:
    """Return the token vectors, (r, t, d).

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
        pad: the id of the padding, for those that count positions after it; None for BERT.
    """
    config.require(
        position_embedding_type="absolute", add_cross_attention=False, is_decoder=False, chunk_size_feed_forward=0
    )
    hidden, inner = config.count("hidden_size"), config.count("intermediate_size")
    heads = config.heads("num_attention_heads", hidden)
    epsilon, activation = config.number("layer_norm_eps", 1e-12), config.activation("hidden_act")
    ids = writer.input_ids()
    words = weights.take("embeddings.word_embeddings.weight", config.count("vocab_size"), hidden)
    places = weights.take("embeddings.position_embeddings.weight", config.count("max_position_embeddings"), hidden)
    types = weights.take("embeddings.token_type_embeddings.weight", config.count("type_vocab_size", 2), hidden)
    positions = writer.positions(ids) if pad is None else writer.positions_after_padding(ids, pad)
    value = writer.add(writer.rows(words, ids), writer.rows(types, writer.token_type_ids()))
    value = writer.add(value, writer.rows(places, positions))
    value = norm(writer, weights, "embeddings.LayerNorm", value, hidden, epsilon)
    bias = writer.mask_bias(writer.attention_mask())
    for layer in range(config.count("num_hidden_layers")):
        name = f"encoder.layer.{layer}"
        query, key, content = (
            projected(writer, weights, f"{name}.attention.self.{part}", value, hidden, hidden)
            for part in ("query", "key", "value")
        )
        attended = writer.attention(query, key, content, bias, heads)
        attended = projected(writer, weights, f"{name}.attention.output.dense", attended, hidden, hidden)
        value = norm(
            writer, weights, f"{name}.attention.output.LayerNorm", writer.add(attended, value), hidden, epsilon
        )
        made = feed_forward(
            writer, weights, (f"{name}.intermediate.dense", f"{name}.output.dense"), value, hidden, inner, activation
        )
        value = norm(writer, weights, f"{name}.output.LayerNorm", writer.add(made, value), hidden, epsilon)
    weights.refuse_rest(PARTS, UNUSED)
    return value
