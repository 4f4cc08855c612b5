"""Cross-encoders that are made on the spot: the real architecture and a tokenizer, tiny and with fixed weights."""

from pathlib import Path
from typing import Any

from tests.support.tiny_encoders import tokenizer


def cross_encoder(folder: Path, *, labels: int = 1, seed: int = 0, max_tokens: int = 64) -> Path:
    """Save a BERT of 32 dimensions that scores pairs of texts; returns its folder."""
    import torch
    import transformers

    torch.manual_seed(seed)
    made = tokenizer("bert", folder, model_max_length=max_tokens)
    made.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(made),
        pad_token_id=made.pad_token_id,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.4,
        num_labels=labels,
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


def reference(folder: Path) -> Any:
    """The model as sentence-transformers runs it, in float32."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
