"""Models for embeddings that are made on the spot: the real architectures and tokenizers, tiny and with random weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FAMILIES = ("bert", "mpnet", "distilbert", "roberta", "xlm-roberta")
ROTARY_FAMILIES = ("modernbert", "qwen3", "gemma3", "nomic_bert", "gte")
"""Those with rotary positions."""

_TEXT = (
    "The quick brown fox jumps over the lazy dog. What is the capital of France, and how many people live there? "
    "Größe, naïve café, Łódź. Ελληνικά και русский текст. 深層学習は、データから特徴を学ぶ。 "
    "def add(a, b): return a + b # 2 + 2 == 4 "
    "query passage sentence number of a long text that goes on beyond what small models read"
)

TEXTS = (
    "cat",
    "x",
    "!",
    "The lazy dog lives in the capital of France.",
    "naïve café in Łódź, Größe 42; русский текст",
    "深層学習 🙂 データ",
    "what many people read " * 4,
    "a very long text that goes on and on " * 40,
    "unreadable￾​ \t\n signs and 2024-08-15, §4(2)",
)
"""Of one token and of far too many, in several scripts, short and long mixed."""


def tokenizer(family: str, folder: Path, **settings: Any) -> Any:
    """Train the kind of tokenizer that a family has on a few sentences."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    family = {"nomic_bert": "bert", "gte": "xlm-roberta"}.get(family, family)  # the tokenizer that it has
    if family in _BYTE_LEVEL:
        return _byte_level_tokenizer(family, settings)
    if family == "gemma3":
        return _gemma_tokenizer(settings)
    if family in ("roberta", "xlm-roberta"):
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    elif family == "mpnet":
        special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    folder.mkdir(parents=True, exist_ok=True)
    if family == "roberta":
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters)
    elif family == "xlm-roberta":
        trained = Tokenizer(models.Unigram())
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    else:
        trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trained.normalizer = normalizers.BertNormalizer()
        trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    trained.train_from_iterator([_TEXT], trainer)
    import json

    model = json.loads(trained.to_str())["model"]
    kind = {
        "bert": transformers.BertTokenizer,
        "distilbert": transformers.DistilBertTokenizer,
        "mpnet": transformers.MPNetTokenizer,
        "roberta": transformers.RobertaTokenizer,
        "xlm-roberta": transformers.XLMRobertaTokenizer,
    }[family]
    given: dict[str, Any] = {"vocab": model["vocab"]}
    if family == "roberta":
        given["merges"] = [tuple(pair) for pair in model["merges"]]
    if family == "xlm-roberta":
        given["vocab"] = [tuple(pair) for pair in model["vocab"]]
    return kind(**given, **settings)


_BYTE_LEVEL: Mapping[str, tuple[Mapping[str, str], str]] = {
    "modernbert": (
        {
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        },
        "[CLS] $A [SEP]",
    ),
    "qwen3": ({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, "$A <|endoftext|>"),
}
"""Special tokens, and what is put around a text, of families whose tokenizers work on bytes."""


def _byte_level_tokenizer(family: str, settings: Mapping[str, Any]) -> Any:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    names, around = _BYTE_LEVEL[family]
    special = list(names.values())
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        [_TEXT], trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters)
    )
    tokens = [(token, trained.token_to_id(token)) for token in special if token in around]
    pair = around.replace("$A", "$A [SEP] $B") if "[SEP]" in around else "$A $B"
    trained.post_processor = processors.TemplateProcessing(single=around, pair=pair, special_tokens=tokens)
    inputs = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, model_input_names=inputs, **{**names, **settings}
    )


def _gemma_tokenizer(settings: Mapping[str, Any]) -> Any:
    """Train a tokenizer that falls back to bytes for letters that it does not know."""
    import json

    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trained.train_from_iterator([_TEXT], trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    model = json.loads(trained.to_str())["model"]
    vocab = dict(model["vocab"])
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    made = transformers.GemmaTokenizer(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]], **settings)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[(token, vocab[token]) for token in ("<bos>", "<eos>")]
    )
    return made


def _random_vectors(network: Any) -> None:
    """Move the scales from 1 and the shifts from 0, at which a network is made, so that leaving one out shows."""
    import torch

    with torch.no_grad():
        for value in network.parameters():
            if value.ndim == 1:
                value += 0.3 * torch.randn_like(value)


def encoder(
    folder: Path,
    family: str = "bert",
    *,
    pooling: str | Sequence[str] = "mean",
    after: Sequence[Any] = (),
    max_seq_length: int | None = None,
    prompts: Mapping[str, str] | None = None,
    seed: int = 0,
    shift: float = 0.0,
    tokenizer_settings: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Save a model, of 32 dimensions by default, with sentence-transformers; returns its folder.

    after: modules behind the pooling; shift: what is added to each weight behind a layer norm, where inputs sum to about 0,
    so that it changes little, but leaves few bits for what tells the weights apart.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(seed)
    raw = folder.with_name(f"{folder.name}-raw")
    made = tokenizer(family, raw, model_max_length=64, **(tokenizer_settings or {}))
    made.save_pretrained(raw)
    sizes: dict[str, Any] = {
        "vocab_size": len(made),
        "pad_token_id": made.pad_token_id,
        "initializer_range": 0.4,
        **config,
    }
    offset = 2 if family in ("roberta", "xlm-roberta", "mpnet") else 0
    if family == "distilbert":
        built = transformers.DistilBertModel(
            transformers.DistilBertConfig(
                **{"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64, **sizes}
            )
        )
    else:
        kinds = {
            "bert": (transformers.BertConfig, transformers.BertModel),
            "mpnet": (transformers.MPNetConfig, transformers.MPNetModel),
            "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
            "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaModel),
            "modernbert": (transformers.ModernBertConfig, transformers.ModernBertModel),
            "qwen3": (transformers.Qwen3Config, transformers.Qwen3Model),
            "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3TextModel),
            "nomic_bert": (transformers.NomicBertConfig, transformers.NomicBertModel),
            "gte": (transformers.GteConfig, transformers.GteModel),
        }
        settings, network = kinds[family]
        usual = {
            "hidden_size": 32,
            **({"num_key_value_heads": 1, "head_dim": 16} if family in ("qwen3", "gemma3") else {}),
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64 + offset,
        }
        built = network(settings(**(usual | sizes)))
    if family in ROTARY_FAMILIES:
        _random_vectors(built)
    with torch.no_grad():
        for name, layer in built.named_modules():
            if isinstance(layer, torch.nn.Linear) and "output" not in name:
                layer.weight += shift
    built.eval().save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=max_seq_length)
    dimension = transformer.get_embedding_dimension()
    modes = pooling if isinstance(pooling, str) else tuple(pooling)
    model = SentenceTransformer(
        modules=[transformer, Pooling(dimension, modes), *after], device="cpu", prompts=dict(prompts or {})
    )
    model.save(str(folder))
    return folder


def reference(folder: Path) -> Any:
    """The model as sentence-transformers runs it, in float32."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})


def sparse_encoder(
    folder: Path, *, strategy: str = "max", prompts: Mapping[str, str] | None = None, seed: int = 0
) -> Path:
    """Save a SPLADE model with a vocabulary of a few hundred words with sentence-transformers; returns its folder."""
    import torch
    import transformers
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    torch.manual_seed(seed)
    raw = folder.with_name(f"{folder.name}-raw")
    made = tokenizer("bert", raw, model_max_length=64)
    made.save_pretrained(raw)
    config = transformers.BertConfig(
        vocab_size=len(made),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.4,
        pad_token_id=made.pad_token_id,
    )
    transformers.BertForMaskedLM(config).eval().save_pretrained(raw)
    modules = [MLMTransformer(str(raw)), SpladePooling(strategy)]
    SparseEncoder(modules=modules, device="cpu", prompts=dict(prompts or {})).save(str(folder))
    return folder
