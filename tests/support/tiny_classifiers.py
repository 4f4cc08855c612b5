"""Models for labels that are made on the spot: the real architectures, tiny, with random weights of a fixed seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.tiny_encoders import tokenizer

EMOTIONS = ("anger", "joy", "sadness", "fear")
JUDGEMENTS = ("contradiction", "neutral", "entailment")
MAX_TOKENS = 64
FAMILIES = ("bert", "camembert", "distilbert", "mpnet", "roberta", "xlm-roberta")
EVEN_FAMILIES = ("modernbert", "nomic_bert", "gte")
"""With rotary positions, whose heads have to have an even number of values."""


def text_classifier(
    folder: Path,
    family: str = "bert",
    labels: Sequence[str] = EMOTIONS,
    *,
    seed: int = 0,
    model_max_length: int | None = None,
    **config: Any,
) -> Path:
    """Save a model that labels texts of 64 tokens at most; returns its folder. With one label it is a reranker.

    family: one of FAMILIES or EVEN_FAMILIES.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    kind = "xlm-roberta" if family == "camembert" else family
    made = tokenizer(kind, folder.with_name(f"{folder.name}-raw"), model_max_length=model_max_length)
    # In RoBERTa's family positions begin after that of the padding.
    after_padding = family not in ("bert", "distilbert", *EVEN_FAMILIES)
    positions = MAX_TOKENS + (made.pad_token_id + 1 if after_padding else 0)
    usual: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    if family == "distilbert":
        usual = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    kinds = {
        "bert": (transformers.BertConfig, transformers.BertForSequenceClassification),
        "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForSequenceClassification),
        "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification),
        "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaForSequenceClassification),
        "camembert": (transformers.CamembertConfig, transformers.CamembertForSequenceClassification),
        "mpnet": (transformers.MPNetConfig, transformers.MPNetForSequenceClassification),
        "modernbert": (transformers.ModernBertConfig, transformers.ModernBertForSequenceClassification),
        "nomic_bert": (transformers.NomicBertConfig, transformers.NomicBertForSequenceClassification),
        "gte": (transformers.GteConfig, transformers.GteForSequenceClassification),
    }
    configuration, network = kinds[family]
    built = network(
        configuration(
            **{
                **usual,
                "max_position_embeddings": positions,
                "vocab_size": len(made),
                "pad_token_id": made.pad_token_id,
                "initializer_range": 0.4,
                "id2label": dict(enumerate(labels)),
                "label2id": {label: number for number, label in enumerate(labels)},
                **config,
            }
        )
    )
    return _saved(built, made, folder)


def image_classifier(folder: Path, labels: Sequence[str] = EMOTIONS, *, seed: int = 0, **config: Any) -> Path:
    """Save a vision transformer for images of 32 by 32 pixels; returns its folder."""
    import torch
    import transformers

    torch.manual_seed(seed)
    built = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            initializer_range=0.4,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            **config,
        )
    )
    return _saved(built, transformers.ViTImageProcessor(size={"height": 32, "width": 32}), folder)


def _saved(network: Any, preparing: Any, folder: Path) -> Path:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            # Otherwise all labels score alike, and leaving a norm out would not show.
            if name.startswith(("classifier", "pre_classifier", "head.")):
                tensor.normal_(0.0, 1.0)
    network.eval().save_pretrained(folder)
    preparing.save_pretrained(folder)
    return folder
