"""Model card of an adapter: metadata in the Hub's YAML, and a text about what the adapter is, its use and its training.

The same adapter and details give the same card, byte for byte, so that publishing again changes nothing.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Self

from hf_gateway.errors import did_you_mean
from hf_gateway.hub.adapter import Adapter
from hf_gateway.hub.errors import HubArgumentError

_PIPELINES = {
    "CAUSAL_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
_SHOWN = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "num_virtual_tokens",
    "target_modules",
    "modules_to_save",
)
_LONG = frozenset({"description", "limitations"})
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_UNTOUCHED = "[More Information Needed]"
"""Placeholder of the card that peft writes; a card that still contains it was not edited."""


@dataclass(frozen=True)
class Metric:
    """One result of an evaluation."""

    name: str
    """Name of the metric, such as `accuracy`."""
    value: float
    """The result."""
    dataset: str
    """Dataset of the evaluation, on the Hub or not."""
    split: str | None = None
    """Split of the dataset, such as `test`; None if unknown."""


@dataclass(frozen=True)
class Details:
    """What the author says about the adapter."""

    license: str | None = None
    """The Hub's identifier of the licence; `other` needs `license_name` and `license_link`."""
    license_name: str | None = None
    """Name of a licence that the Hub has no identifier for."""
    license_link: str | None = None
    """URL of that licence."""
    base_model: str | None = None
    """Hub id of the base model, where the adapter's files name none."""
    base_license: str | None = None
    """Licence of the base model, where the Hub names none."""
    title: str | None = None
    """Title of the card; the repository's name by default."""
    description: str | None = None
    """What the adapter does."""
    limitations: str | None = None
    """Known limitations."""
    pipeline_tag: str | None = None
    """Task of the model as the Hub names it, such as `text-generation`."""
    language: tuple[str, ...] = ()
    """Language codes such as `en`."""
    tags: tuple[str, ...] = ()
    """Further tags."""
    datasets: tuple[str, ...] = ()
    """Datasets of the training, on the Hub or not."""
    metrics: tuple[Metric, ...] = ()
    """Results of evaluations."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training settings by name."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self:
        """Read the details from a mapping. Raises HubArgumentError, a ValueError, for unknown names and invalid values."""
        given = {name: value for name, value in metadata.items() if value is not None and name != "repo_id"}
        for other, name in (("dataset", "datasets"), ("training_config", "training")):
            if other in given:
                given[name] = given.pop(other)
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise HubArgumentError(f"metadata has no {name!r}{did_you_mean(name, set(cls.__dataclass_fields__))}")
        found: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("language", "tags", "datasets"):
                found[name] = _check_texts(name, value)
            elif name == "training":
                found[name] = dict(_flatten(_mapping(name, value)))
            elif name != "metrics":
                found[name] = _check_text(name, value)
        datasets = found.get("datasets", ())
        found["metrics"] = tuple(_metrics(given.get("metrics"), datasets[0] if datasets else None))
        return cls(**found)


def card(adapter: Adapter, details: Details, repo_id: str) -> str:
    """Return the card as Markdown.

    The text of an existing README.md is kept if it was edited; the template that peft writes is replaced.

    Args:
        adapter: the adapter to publish.
        details: what the author says about it.
        repo_id: repository that it is published to.

    Raises:
        HubArgumentError: the existing README.md has invalid metadata.
    """
    from huggingface_hub import EvalResult, ModelCardData

    own, text = _existing_card(adapter.readme)
    tags = ["lora"] if "LORA" in adapter.peft_type else []
    kept = own.pop("tags", None) or []
    kept = _check_texts("tags", [str(tag) for tag in kept] if isinstance(kept, list) else kept)
    kept = [tag for tag in kept if not tag.startswith("base_model:")]
    if adapter.base_model:
        tags.append(f"base_model:adapter:{adapter.base_model}")
    ours = {
        "base_model": adapter.base_model,
        "base_model_relation": "adapter" if adapter.base_model else None,
        "library_name": "peft",
        "license": details.license,
        "license_name": details.license_name,
        "license_link": details.license_link,
        "pipeline_tag": pipeline_tag(adapter, details),
        "language": _one_or_all(details.language),
        "datasets": list(details.datasets),
    }
    own.pop("base_model", None)
    merged = own | {name: value for name, value in ours.items() if value}
    results = [
        EvalResult(
            task_type=pipeline_tag(adapter, details) or "other",
            dataset_type=metric.dataset,
            dataset_name=metric.dataset,
            dataset_split=metric.split,
            metric_type=metric.name,
            metric_name=metric.name,
            metric_value=metric.value,
        )
        for metric in details.metrics
    ]
    if results:
        merged.pop("model-index", None)
        merged |= {"model_name": details.title or repo_id.rpartition("/")[2], "eval_results": results}
    merged["tags"] = list(dict.fromkeys([*kept, *tags, *details.tags]))
    data = ModelCardData(ignore_metadata_errors=False, **merged)
    body = text if text is not None else _body(adapter, details, repo_id)
    for name in adapter.local_names:
        if re.search(r"[\\/]", name):
            # A bare folder name is a word that reveals nothing about this machine; a longer path is a different path.
            known = adapter.base_model or "a model that is not on the Hub"
            body = re.sub(rf"(?<![\w./\\-]){re.escape(name)}(?![\w-]|\.\w)", known, body)
    return f"---\n{data.to_yaml(line_break=chr(10)).rstrip()}\n---\n\n{body.strip()}\n"


def front_and_body(text: str) -> tuple[Any, str]:
    """Split a finished card into its metadata and its text."""
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    return import_module("yaml").safe_load(front), body  # of a package that comes with huggingface_hub


def license_in(readme: str | None) -> str | None:
    """Return the licence in the metadata of a README.md."""
    found = _existing_card(readme)[0].get("license")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, str) else None


def pipeline_tag(adapter: Adapter, details: Details) -> str | None:
    """Return the model's task as the Hub names it.

    Args:
        adapter: the adapter.
        details: what the author says about it; has priority over the adapter's config.

    Returns:
        The tag; None if unknown.
    """
    return details.pipeline_tag or _PIPELINES.get(adapter.task_type or "")


def _existing_card(readme: str | None) -> tuple[dict[str, Any], str | None]:
    """Return the metadata of the existing README.md, and its text if it was edited."""
    if not readme or not readme.strip():
        return {}, None
    from huggingface_hub import ModelCard

    not_yaml: type[Exception] = import_module("yaml").YAMLError  # of a package that comes with huggingface_hub
    try:
        found: Any = ModelCard(_as_the_hub_reads(readme))
        data: dict[str, Any] = found.data.to_dict()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, not_yaml) as error:
        raise HubArgumentError(f"README.md: the Hub cannot read its metadata: {error}") from None
    written = found.text.strip() and _UNTOUCHED not in found.text
    return {name: value for name, value in data.items() if value is not None}, found.text if written else None


def _as_the_hub_reads(readme: str) -> str:
    """Return a card whose metadata mean the same in YAML 1.1 and 1.2: the Hub reads `no` as Norwegian, PyYAML as false."""
    found = _FRONT.match(readme)
    data = import_module("yaml").load(found[1], _yaml_1_2()) if found else None
    if found is None or not isinstance(data, dict):
        return readme
    written = import_module("yaml").safe_dump(_without_nulls(data), sort_keys=False, allow_unicode=True)
    return f"---\n{written}---\n{readme[found.end() :]}"


@cache
def _yaml_1_2() -> Any:
    """Return a loader whose only booleans are true and false; PyYAML's own also reads yes, no, on and off as booleans (1.1)."""
    yaml, boolean = import_module("yaml"), "tag:yaml.org,2002:bool"
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] != boolean]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    loader.add_implicit_resolver(boolean, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    return loader


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value if each is not None]
    return value


def _body(adapter: Adapter, details: Details, repo_id: str) -> str:
    base = adapter.base_model
    link = f"[{base}](https://huggingface.co/{base})" if base else "a model that is not on the Hub"
    tag = pipeline_tag(adapter, details)
    made = f"A {adapter.peft_type} adapter of {link}{f' for {tag}' if tag else ''}, in the form of"
    parts = [
        f"# {details.title or repo_id.rpartition('/')[2]}",
        details.description,
        f"{made} [PEFT](https://huggingface.co/docs/peft).",
        f"## Use\n\n```python\n{usage(adapter, repo_id)}\n```",
        f"## The adapter\n\n{_table(('', ''), _adapter_facts(adapter))}",
    ]
    if details.datasets or details.training:
        sources = f"Trained on {', '.join(map(_dataset, details.datasets))}." if details.datasets else None
        table = _table(("setting", "value"), details.training.items()) if details.training else None
        parts.append("\n\n".join(["## Training", *filter(None, (sources, table))]))
    if details.metrics:
        rows = [
            (metric.name, metric.value, _dataset(metric.dataset) + (f" ({metric.split})" if metric.split else ""))
            for metric in details.metrics
        ]
        parts.append(f"## Evaluation\n\n{_table(('metric', 'value', 'dataset'), rows)}")
    if details.limitations:
        parts.append(f"## Limitations\n\n{details.limitations}")
    if details.license:
        name = details.license_name or details.license
        terms = f"[{name}]({details.license_link})" if details.license_link else name
        also = f" The terms of {link} hold as well." if base else ""
        parts.append(f"## Licence\n\n{terms}.{also}")
    return "\n\n".join(part for part in parts if part)


def usage(adapter: Adapter, repo_id: str) -> str:
    """Return Python code that loads the base model, this adapter and the tokenizer.

    Args:
        adapter: the adapter.
        repo_id: repository that it is published to.
    """
    kind = _CLASSES.get(adapter.task_type or "", "AutoModel")
    base = adapter.base_model or "path/to/the/base-model"
    at = f', revision="{adapter.revision}"' if adapter.revision and adapter.base_model else ""
    tokenizer = repo_id if any(file.path == "tokenizer_config.json" for file in adapter.files) else base
    lines = [
        "from peft import PeftModel",
        f"from transformers import {', '.join(sorted((kind, 'AutoTokenizer')))}",
        "",
        f'base = {kind}.from_pretrained("{base}"{at})',
        f'model = PeftModel.from_pretrained(base, "{repo_id}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer}"{at if tokenizer == base else ""})',
    ]
    if kind == "AutoModelForCausalLM":
        lines += [
            "",
            'prompt = tokenizer("Hello", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))",
        ]
    return "\n".join(lines)


def _adapter_facts(adapter: Adapter) -> Iterable[tuple[str, Any]]:
    yield "kind", adapter.peft_type
    if adapter.tensors is not None:
        types = ", ".join(sorted(adapter.tensors.dtypes))
        yield "parameters", f"{adapter.tensors.parameters:,} ({types})"
    for name in _SHOWN:
        value = adapter.config.get(name)
        if value not in (None, False, [], ""):
            yield name, value
    if version := adapter.config.get("peft_version"):
        yield "PEFT", version


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in lines)


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        value = ", ".join(sorted(map(str, value)))
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").strip()


def _dataset(name: str) -> str:
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII)
    return f"[{name}](https://huggingface.co/datasets/{name})" if hub else name


def _metrics(value: Any, dataset: str | None) -> Iterable[Metric]:
    """Read `{"accuracy": 0.91}`, measured on the first dataset, or a list of objects that name their datasets."""
    if isinstance(value, Mapping):
        value = [{"name": name, "value": number} for name, number in value.items()]
    if value is not None and not isinstance(value, list | tuple):
        raise HubArgumentError(f"metadata: metrics are numbers by name, or a list, not {type(value).__name__}")
    for row in value or ():
        given = dict(_mapping("metrics", row))
        name, number, where = given.pop("name", None), given.pop("value", None), given.pop("dataset", dataset)
        split = given.pop("split", None)
        known = isinstance(name, str) and isinstance(number, int | float) and not isinstance(number, bool)
        if not known or given or not isinstance(split, str | None):
            raise HubArgumentError(
                "each of metrics is a name and a number, with `dataset` and `split` if they are known: "
                '{"name": "accuracy", "value": 0.91, "dataset": "org/data", "split": "test"}'
            )
        if isinstance(number, float) and not math.isfinite(number):
            raise HubArgumentError(f"metrics: {name} is {number}, not a finite number")
        if not isinstance(where, str):
            raise HubArgumentError(f"metrics: name the dataset that {name} was measured on (`dataset`)")
        yield Metric(name, number, where, split)


def _flatten(value: Mapping[str, Any], at: str = "") -> Iterable[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _flatten(each, f"{at}{name}.")
        elif each is not None:
            yield f"{at}{name}", each


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise HubArgumentError(f"metadata: {name} is a mapping of names to values, not {type(value).__name__}")
    return value


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "an empty one" if isinstance(value, str) else type(value).__name__
        raise HubArgumentError(f"metadata: {name} is a text, not {what}")
    if name not in _LONG and not value.strip().isprintable():
        raise HubArgumentError(f"metadata: {name} is one line of text")
    return value.strip()


def _check_texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple | set | frozenset):
        raise HubArgumentError(f"metadata: {name} is a text or a list of texts, not {type(value).__name__}")
    return tuple(_check_text(name, each) for each in value)


def _one_or_all(values: tuple[str, ...]) -> str | list[str] | None:
    return values[0] if len(values) == 1 else list(values) or None
