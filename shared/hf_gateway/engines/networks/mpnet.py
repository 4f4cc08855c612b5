"""MPNet: BERT with a bias by the distance of two tokens in every attention."""

import math
from typing import TYPE_CHECKING, Any

from hf_gateway.engines.networks.blocks import feed_forward, norm, projected
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.rotary import MAX_TABLE_VALUES
from hf_gateway.engines.networks.writer import Node, Writer
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAX_DISTANCE_TOKENS = 128
"""Distance in tokens from which all share one bucket."""


def build(config: Config, weights: Weights, writer: Writer, *, pad: int) -> Node:
    """Return the token vectors, (r, t, d).

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
        pad: the id of the padding, after which positions are counted.
    """
    config.require(chunk_size_feed_forward=0)
    hidden = config.count("hidden_size")
    heads = config.heads("num_attention_heads", hidden)
    inner, length = config.count("intermediate_size"), config.count("max_position_embeddings")
    if heads * length * length > MAX_TABLE_VALUES:
        raise EngineFailed(f"its config.json has max_position_embeddings={length}, too many for MPNet's distances here")
    buckets = config.count("relative_attention_num_buckets", 32)
    epsilon, activation = config.number("layer_norm_eps", 1e-12), config.activation("hidden_act")
    ids = writer.input_ids()
    words = weights.take("embeddings.word_embeddings.weight", config.count("vocab_size"), hidden)
    places = weights.take("embeddings.position_embeddings.weight", length, hidden)
    value = writer.add(writer.rows(words, ids), writer.rows(places, writer.positions_after_padding(ids, pad)))
    value = norm(writer, weights, "embeddings.LayerNorm", value, hidden, epsilon)
    table = weights.take("encoder.relative_attention_bias.weight", buckets, heads)
    distances = writer.square_of(_bias_by_distance(table, length), ids)
    bias = writer.add(writer.mask_bias(writer.attention_mask()), distances)
    for layer in range(config.count("num_hidden_layers")):
        name = f"encoder.layer.{layer}"
        query, key, content = (
            projected(writer, weights, f"{name}.attention.attn.{part}", value, hidden, hidden) for part in "qkv"
        )
        attended = writer.attention(query, key, content, bias, heads)
        attended = projected(writer, weights, f"{name}.attention.attn.o", attended, hidden, hidden)
        value = norm(writer, weights, f"{name}.attention.LayerNorm", writer.add(attended, value), hidden, epsilon)
        made = feed_forward(
            writer, weights, (f"{name}.intermediate.dense", f"{name}.output.dense"), value, hidden, inner, activation
        )
        value = norm(writer, weights, f"{name}.output.LayerNorm", writer.add(made, value), hidden, epsilon)
    weights.refuse_rest(("embeddings", "encoder"), ("position_ids",))
    return value


def _bias_by_distance(table: "Array", length: int) -> "Array":
    """Return the bias of every pair of tokens, (h, length, length), of a table (buckets, h).

    Half of the buckets are for tokens before, half for those behind; of each, half are single distances, and the others grow
    logarithmically up to MAX_DISTANCE_TOKENS.
    """
    import numpy as np

    half = len(table) // 2
    exact = half // 2
    places = np.arange(length)
    distance = places[None, :] - places[:, None]
    far = np.abs(distance)
    grown = exact + (
        np.log(np.maximum(far, 1).astype(np.float32) / exact) / math.log(MAX_DISTANCE_TOKENS / exact) * (half - exact)
    ).astype(np.int64)
    bucket = np.where(far < exact, far, np.minimum(grown, half - 1)) + np.where(distance > 0, half, 0)
    return np.ascontiguousarray(table[bucket].transpose(2, 0, 1))
