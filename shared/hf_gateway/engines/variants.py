"""Vectors of a model with one part changed: its pooling, its prompts, its normalisation.

A server that runs the right weights in the wrong way gives one of these, so its error can be named. This loads the
model, so only `hf-gateway verify` uses it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from hf_gateway.engines.saved_space import space_of
from hf_gateway.engines.sentence_transformers import OPTIONS, Engine
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import EngineFailed
from hf_gateway.spaces.fingerprint import CANARIES, Row, Rows
from hf_gateway.values.embedding import EmbedRequest, Role
from hf_gateway.values.vector_space import VectorSpace

ROLES: tuple[Role, ...] = ("document", "query")
POOLINGS = {"mean": "mean pooling", "cls": "CLS pooling", "lasttoken": "last-token pooling", "max": "max pooling"}

Prompts = Mapping[Role, str]


def measured_variants(
    files: ModelFiles, space: VectorSpace, options: Mapping[str, Any] | None = None, revision: str | None = None
) -> tuple[Rows, dict[str, Rows]]:
    """Embed the canaries as the model's files say, and with every change of pooling, prompts and normalisation.

    Args:
        files: the model's files.
        space: vector space, with the prompts.
        options: the target's options.
        revision: revision of the files.

    Returns:
        The right vectors, and the changed ones by a description of the change, such as "with CLS pooling and without
            normalisation", the fewest changes first; none if the pooling of the model cannot be changed.

    Raises:
        EngineMissing, EngineFailed: the model cannot be loaded here.
    """
    known = {"dtype": "float32", **{name: value for name, value in (options or {}).items() if name in OPTIONS}}
    engine = Engine(files, space, known, revision=revision)
    own: Rows = {
        role: tuple(tuple(row) for row in engine.embed(EmbedRequest(list(CANARIES), role, truncate=True)).vectors)
        for role in ROLES
    }
    prompts: Prompts = {"query": space.query_prompt or "", "document": space.document_prompt or ""}
    try:
        return own, dict(_variant_rows(engine._model, space_of(files, space.model).pooling, prompts))
    except Exception as error:  # of torch, or of a module that needs more than a sentence embedding
        raise EngineFailed(f"{files.path} cannot be pooled in another way: {type(error).__name__}: {error}") from error


def _variant_rows(model: Any, pooling: str | None, prompts: Prompts) -> Iterator[tuple[str, Rows]]:
    modules = list(model)
    names = [type(module).__name__ for module in modules]
    if "Pooling" not in names:
        return
    place = names.index("Pooling")
    if not getattr(modules[place], "include_prompt", True) and any(prompts.values()):
        return
    normalises = "Normalize" in names
    after = [module for module in modules[place + 1 :] if type(module).__name__ != "Normalize"]
    tokens: dict[str, list[Any]] = {}
    found: list[tuple[int, str, Rows]] = []
    for (mode, pooled), (prompted, prompting), normal in product(
        _poolings(pooling), _promptings(prompts), (False, True)
    ):
        scaled = "" if normal == normalises else "with normalisation" if normal else "without normalisation"
        changes = [words for words in (pooled, prompting, scaled) if words]
        rows: dict[Role, tuple[Row | None, ...]] = {}
        for role in ROLES:
            prompt = prompted[role]
            if prompt not in tokens:
                tokens[prompt] = _token_embeddings(model, prompt)
            rows[role] = tuple(_finish_row(each, mode, after, normal) for each in tokens[prompt])
        found.append((len(changes), " and ".join(changes), rows))
    for changed, words, made in sorted(found, key=lambda each: each[0]):
        if changed:
            yield words, made


def _poolings(own: str | None) -> list[tuple[str, str]]:
    """Return each pooling with its description; an empty one for the model's own."""
    return [(mode, "" if mode == own else f"with {words}") for mode, words in POOLINGS.items()]


def _promptings(prompts: Prompts) -> list[tuple[Prompts, str]]:
    """Return each way to put prompts before texts with its description; an empty one for the right way."""
    query, document = prompts["query"], prompts["document"]
    ways = {
        (query, document): "",
        ("", document): "without the query prompt",
        (query, ""): "without the document prompt",
        (query, query): "with the query prompt before documents",
        (document, document): "with the document prompt before queries",
    }
    if query and document:
        ways["", ""] = "without prompts"
    words = {**ways, (query, document): ""}
    return [({"query": before, "document": ahead}, description) for (before, ahead), description in words.items()]


def _token_embeddings(model: Any, prompt: str) -> list[Any]:
    """Return one (tokens, dim) tensor per canary; one text at a time, so that there is no padding."""
    found: Sequence[Any] = model.encode(
        list(CANARIES), prompt=prompt, output_value="token_embeddings", batch_size=1, show_progress_bar=False
    )
    return [each.detach().cpu().float() for each in found]


def _finish_row(tokens: Any, mode: str, after: Sequence[Any], normal: bool) -> Row:
    import torch

    pooled = {
        "mean": lambda: tokens.mean(0),
        "cls": lambda: tokens[0],
        "lasttoken": lambda: tokens[-1],
        "max": lambda: tokens.max(0).values,
    }[mode]()[None]
    with torch.no_grad():
        for module in after:
            pooled = module.cpu().float()({"sentence_embedding": pooled})["sentence_embedding"]
    if normal:
        pooled = torch.nn.functional.normalize(pooled, dim=-1)
    return tuple(pooled[0].tolist())
