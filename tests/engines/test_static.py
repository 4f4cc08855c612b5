"""Static models without torch: the vectors of sentence-transformers and of model2vec, or a refusal with its reason."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from tests.servers.hub import FakeHub, HubModel
from tests.support.graph_vectors import embed_without_torch
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import TEXTS, tokenizer

if COLLECTED:
    import numpy as np
    from model2vec import StaticModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, StaticEmbedding

pytestmark = pytest.mark.xdist_group("torch")

TOKENIZERS = ("bert", "xlm-roberta", "modernbert")
"""WordPiece, Unigram, and BPE on bytes, which knows everything."""
WIDE = 24
TOLERANCE = 2e-5
"""Of a value, as a share of the largest one of a model: float32, added up in another order."""
MANY_TOLERANCE = 10 * TOLERANCE
"""The same for sums of thousands of rows: torch's own is 3e-5 from that in float64, and is another on other processors."""


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model2vec(
    folder: Path, family: str = "bert", *, modules: bool = False, dtype: str = "float32", **settings: Any
) -> Path:
    """Save a model of model2vec; returns its folder."""
    made = tokenizer(family, folder.with_name(f"{folder.name}-raw")).backend_tokenizer
    table = random(made.get_vocab_size(), WIDE) * 20
    StaticModel(table.astype(dtype), made, {"model_type": "model2vec"}, **settings).save_pretrained(folder)
    if not modules:  # as older versions saved it
        (folder / "modules.json").unlink()
    return folder


def mapped(folder: Path, family: str = "bert", **settings: Any) -> Path:
    """Save a model with fewer rows than tokens and a weight for each token; returns its folder."""
    made = tokenizer(family, folder.with_name(f"{folder.name}-raw")).backend_tokenizer
    size = made.get_vocab_size()
    rows = np.random.default_rng(1).integers(0, 40, size)
    weights = np.abs(random(size, seed=2)) + 0.1
    modules = settings.pop("modules", False)
    StaticModel(
        random(40, WIDE), made, {"model_type": "model2vec"}, weights=weights, token_mapping=rows, **settings
    ).save_pretrained(folder)
    if not modules:
        (folder / "modules.json").unlink()
    return folder


def static_embedding(folder: Path, family: str = "bert", *after: Any, prompts: Mapping[str, str] | None = None) -> Path:
    """Save a model of sentence-transformers; returns its folder."""
    made = tokenizer(family, folder.with_name(f"{folder.name}-raw")).backend_tokenizer
    table = random(made.get_vocab_size(), WIDE)
    modules = [StaticEmbedding(made, table), *after]
    SentenceTransformer(modules=modules, device="cpu", prompts=dict(prompts or {})).save(str(folder))
    return folder


SAVE: dict[str, Callable[..., Path]] = {
    "model2vec": model2vec,
    "mapped": mapped,
    "static_embedding": static_embedding,
}


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def gateway(folder: Path, options: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
    arguments = {"truncate": True, "check_space": False, **arguments}
    return Gateway(str(folder), [Target("local", options=dict(options or {}))], **arguments)


def engine_of(chain: Any) -> str:
    name: str = chain.candidates[0].ability.engine().name
    return name


def assert_vectors(folder: Path, expected: Any, texts: tuple[str, ...] = TEXTS, tolerance: float = TOLERANCE) -> None:
    """Compare with the vectors of another library for all texts of which it knows a token."""
    known = [place for place, row in enumerate(expected) if np.any(row)]
    assert len(known) > len(texts) // 2
    chain = gateway(folder)
    found = np.asarray(chain.embed([texts[place] for place in known]).vectors)
    assert engine_of(chain) == "static"
    wanted = np.asarray(expected, np.float32)[known]
    assert found == pytest.approx(wanted, abs=tolerance * float(np.abs(wanted).max()))
    for place in set(range(len(texts))) - set(known):
        with pytest.raises(errors.BadResponse, match="row 0 is all zeros"):
            chain.embed([texts[place]])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_model_of_model2vec_has_its_vectors(family: str, normalize: bool, tmp_path: Path) -> None:
    folder = model2vec(tmp_path / "made", family, normalize=normalize, max_length=64)
    assert_vectors(folder, StaticModel.from_pretrained(folder).encode(list(TEXTS)))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_a_table_of_another_number_type_is_read(dtype: str, tmp_path: Path) -> None:
    folder = model2vec(tmp_path / "made", dtype=dtype)
    whole = StaticModel.from_pretrained(folder)
    whole.embedding = whole.embedding.astype(np.float32)  # so that it does not round the means to 16 bits
    assert_vectors(folder, whole.encode(list(TEXTS)))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("family", TOKENIZERS)
def test_tokens_that_share_rows_and_have_weights_are_those_of_model2vec(
    family: str, normalize: bool, tmp_path: Path
) -> None:
    folder = mapped(tmp_path / "made", family, normalize=normalize)
    assert_vectors(folder, StaticModel.from_pretrained(folder).encode(list(TEXTS)))


@pytest.mark.parametrize("save", ["model2vec", "mapped"])
def test_files_of_model2vec_with_modules_have_the_vectors_of_sentence_transformers(save: str, tmp_path: Path) -> None:
    folder = SAVE[save](tmp_path / "made", modules=True, normalize=True, max_length=40)
    assert_vectors(folder, SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS)))


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_static_embedding_has_the_vectors_of_sentence_transformers(family: str, tmp_path: Path) -> None:
    folder = static_embedding(tmp_path / "made", family)
    assert_vectors(folder, SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS)))


def test_layers_after_the_table_and_prompts_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    after = (Dense(WIDE, 10), Normalize())
    prompts = {"query": "what many people ", "document": "passage "}
    folder = static_embedding(tmp_path / "made", "bert", *after, prompts=prompts)
    model = SentenceTransformer(str(folder), device="cpu")
    chain = gateway(folder)
    documents, query = (np.asarray(chain.embed(list(TEXTS), role=role).vectors) for role in ("document", "query"))
    assert documents == pytest.approx(model.encode_document(list(TEXTS)), abs=TOLERANCE)
    assert query == pytest.approx(model.encode_query(list(TEXTS)), abs=TOLERANCE)
    assert chain.space.normalized is True
    assert chain.space.dimension == 10


def test_a_long_text_without_a_limit_is_read_to_its_end(tmp_path: Path) -> None:
    folder = static_embedding(tmp_path / "made")
    text = TEXTS[7] * 15 + "dog"  # more tokens than are added up at once
    texts = (text, TEXTS[0])
    assert_vectors(folder, SentenceTransformer(str(folder), device="cpu").encode(list(texts)), texts, MANY_TOLERANCE)


@pytest.mark.parametrize("modules", [False, True])
def test_a_text_beyond_the_limit_is_refused_unless_it_may_be_cut(modules: bool, tmp_path: Path) -> None:
    folder = model2vec(tmp_path / "made", "modernbert", modules=modules, max_length=8)
    with pytest.raises(errors.ContextOverflow, match=r"text 1 of 2 has \d+ tokens, but the model's limit is 8"):
        gateway(folder, truncate=False).embed(["cat", "the lazy dog lives in the capital"])


def test_a_text_of_few_tokens_with_more_characters_than_model2vec_reads_is_refused_unless_it_may_be_cut(
    tmp_path: Path,
) -> None:
    folder = model2vec(tmp_path / "made", "bert", max_length=8)
    model = StaticModel.from_pretrained(folder)
    text = "cat" + " " * 8 * model.median_token_length + "dog"
    with pytest.raises(errors.ContextOverflow, match=f"text 0 of 1 has {len(text)} characters, but the model reads"):
        gateway(folder, truncate=False).embed([text])
    assert_vectors(folder, model.encode([text, "dog"]), (text, "dog"))


def test_without_a_limit_model2vec_reads_all(tmp_path: Path) -> None:
    folder = model2vec(tmp_path / "made", max_length=None)
    texts = (TEXTS[7] * 20, TEXTS[7])  # a single word is not in every vocabulary that is trained on so few sentences
    assert_vectors(folder, StaticModel.from_pretrained(folder).encode(list(texts)), texts, MANY_TOLERANCE)


def test_its_space_is_that_of_the_files_and_the_guard_knows_it(tmp_path: Path) -> None:
    chain = gateway(model2vec(tmp_path / "made", "modernbert", normalize=True), check_space=True)
    chain.embed(["a cat", "a dog"])
    space = chain.space
    assert (space.pooling, space.normalized, space.max_tokens, space.precision) == ("mean", True, 512, "float")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "bf16"}, "it does not support dtype='bf16'"),
        ({"weights": "int8"}, "it does not support weights='int8'"),
        ({"device": "cuda"}, "it runs on the CPU, not on device='cuda'"),
        *(({"engine": engine}, "runs on the engine 'static' only") for engine in ("openvino", "onnxruntime", "torch")),
    ],
)
@pytest.mark.parametrize("save", ["model2vec", "static_embedding"])
def test_an_option_that_a_table_does_not_have_is_refused_by_name(
    save: str, options: dict[str, str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.EngineFailed, match=reason):
        gateway(SAVE[save](tmp_path / "made"), options).embed(["cat"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda found: {"table": found["embeddings"]}, "the tensor 'embeddings' is missing, or not a table"),
        (lambda found: {**found, "embeddings": found["embeddings"][:5]}, "'mapping' names rows that the table"),
        (lambda found: {**found, "weights": found["weights"][:5]}, "'weights' has 5 values for"),
        (lambda found: {**found, "weights": found["weights"][:, None]}, "'weights' of its files is not one value"),
        (lambda found: {**found, "mapping": found["weights"]}, "'mapping' of its files is not one value"),
        (
            lambda found: {"embeddings": found["embeddings"][:20]},
            "its tokenizer has the token .*, but its table has rows for 20",
        ),
    ],
    ids=["no table", "few rows", "few weights", "wide weights", "fractions", "few tokens"],
)
def test_files_that_do_not_fit_together_are_refused_by_name(
    spoil: Callable[[dict[str, Any]], dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = mapped(tmp_path / "made")
    path = folder / "model.safetensors"
    changed = spoil(load_file(path))
    save_file({name: np.ascontiguousarray(each) for name, each in changed.items()}, path)
    with pytest.raises(errors.EngineFailed, match=reason):
        gateway(folder).embed(["the lazy dog lives in the capital of France"])


def test_custom_code_after_the_table_is_refused(tmp_path: Path) -> None:
    folder = static_embedding(tmp_path / "made", "bert", Normalize())
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "mine.Normalize"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(errors.EngineFailed, match=r"its module mine\.Normalize is not one of Dense and Normalize"):
        gateway(folder, {"engine": "static"}).embed(["cat"])


def test_a_tokenizer_that_cuts_on_the_left_is_refused(tmp_path: Path) -> None:
    folder = static_embedding(tmp_path / "made")
    cut = {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    change(folder / "tokenizer.json", truncation=cut)
    with pytest.raises(errors.EngineFailed, match="cuts long texts on the left"):
        gateway(folder, {"engine": "static"}).embed(["cat"])


def test_the_engine_is_for_static_models_alone(tmp_path: Path) -> None:
    from tests.support.tiny_encoders import encoder

    with pytest.raises(errors.EngineFailed, match="it is not a static model"):
        gateway(encoder(tmp_path / "made"), {"engine": "static"}).embed(["cat"])


@pytest.mark.parametrize("save", ["model2vec", "static_embedding"])
def test_a_static_model_of_the_hub_is_downloaded_once_and_runs_without_torch(save: str, tmp_path: Path) -> None:
    folder = SAVE[save](tmp_path / "made", "modernbert")
    expected = np.asarray(gateway(folder).embed(list(TEXTS)).vectors)
    places = {"HF_HOME": str(tmp_path / "home"), "HF_GATEWAY_HOME": str(tmp_path / "gw")}
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        name, vectors, _ = embed_without_torch("org/model", HF_ENDPOINT=hub.url, **places)
    assert name == "static"
    assert vectors == pytest.approx(expected, abs=1e-6)
    # From the cache, with no Hub there any more.
    assert embed_without_torch("org/model", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", **places)[0] == "static"
