"""The values of a classification: request, answer of a target, labels with scores."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from hf_gateway.errors import BatchTooLarge, InvalidRequest
from hf_gateway.values.image_type import SUPPORTED, image_type
from hf_gateway.values.rerank import ModelScale
from hf_gateway.values.result import Result
from hf_gateway.values.text_batches import checked_texts, iterable, split_texts, text_fault
from hf_gateway.values.usage import Usage
from hf_gateway.values.wording import preview, quantity

DEFAULT_TEMPLATE = "This example is {}."
"""The default of transformers and of the hosted models."""
CONSEQUENCE = "nothing was classified"


@dataclass(frozen=True)
class Label:
    """A label of an input."""

    label: str
    """Its name: the model's own, or one of those that were given."""
    score: float
    """Higher is more likely; of most models a probability from 0 to 1."""


def template_fault(template: Any) -> str | None:
    """Return why a text cannot be a hypothesis template, in words that follow its name; None for a valid one."""
    if not isinstance(template, str) or template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        return f"is a text with one {{}} where the label belongs, such as {DEFAULT_TEMPLATE!r}, not {preview(template)}"
    return None


@dataclass(frozen=True)
class ClassifyRequest:
    """Texts, pairs of texts or images, and how to label them."""

    texts: Sequence[str] = ()
    """The texts, or the first of each pair, checked by `of`; empty for images."""
    seconds: Sequence[str] = ()
    """The second text of each pair, for a model that judges pairs; empty for single texts."""
    images: Sequence[bytes] = field(default=(), repr=False)
    """The images, checked by `of`; empty for texts and pairs."""
    labels: tuple[str, ...] = ()
    """The labels to choose from (zero-shot classification); empty for the model's own."""
    multi_label: bool = False
    """Whether each of these labels is scored by itself; otherwise their scores add up to 1."""
    hypothesis_template: str = DEFAULT_TEMPLATE
    """The sentence that a model for zero-shot classification judges, with {} for the label."""
    truncate: bool = False
    """Whether a text that is too long for the model is truncated rather than refused."""
    top_k: int | None = None
    """How many labels are wanted for each input; None for all."""
    scale: ModelScale = "probability"
    """What the scores are to be."""

    @classmethod
    def of(
        cls,
        inputs: Iterable[str] | Iterable[tuple[str, str]] | Iterable[bytes],
        *,
        labels: Iterable[str] | None = None,
        multi_label: bool = False,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        truncate: bool = False,
        top_k: int | None = None,
        scale: ModelScale = "probability",
    ) -> Self:
        """Check a caller's arguments before anything is sent.

        Args:
            inputs: strings, pairs of strings, or images as bytes.
            labels: the labels to choose from, for single texts only; None for the model's own.
            multi_label: whether each label is scored by itself.
            hypothesis_template: the sentence to judge, with {} for the label.
            truncate: whether texts that are too long may be truncated.
            top_k: how many labels are wanted for each input; None for all.
            scale: what the scores are to be; probabilities for labels of the caller.

        Raises:
            InvalidRequest: an argument is invalid; names an input by its index.
        """
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise InvalidRequest(
                f"top_k is a whole number above 0, or None for all, not {preview(top_k)}; {CONSEQUENCE}"
            )
        if fault := template_fault(hypothesis_template):
            raise InvalidRequest(f"hypothesis_template {fault}; {CONSEQUENCE}")
        listed = list(iterable(inputs, "a list", "inputs"))
        wanted = None if labels is None else _checked_labels(labels)
        if wanted is not None and scale == "logit":
            raise InvalidRequest(
                f"labels of your own get probabilities: logits are of the labels of a model; {CONSEQUENCE}"
            )
        if listed and isinstance(listed[0], bytes | bytearray | memoryview):
            if wanted is not None:
                raise InvalidRequest(f"labels are for texts; an image gets the labels of its model; {CONSEQUENCE}")
            return cls(images=_checked_images(listed), top_k=top_k, scale=scale)
        if listed and isinstance(listed[0], tuple | list):
            if wanted is not None:
                raise InvalidRequest(f"labels are for single texts; a pair gets the labels of its model; {CONSEQUENCE}")
            firsts, seconds = _checked_pairs(listed)
            return cls(firsts, seconds, truncate=truncate, top_k=top_k, scale=scale)
        texts = checked_texts(listed, CONSEQUENCE, argument="inputs")
        return cls(texts, (), (), wanted or (), multi_label, hypothesis_template, truncate, top_k, scale)

    @property
    def inputs(self) -> Sequence[str] | Sequence[tuple[str, str]] | Sequence[bytes]:
        """The texts, the pairs of texts, or the images."""
        return self.images or self.pairs or self.texts

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of texts; empty for single texts."""
        return list(zip(self.texts, self.seconds, strict=True)) if self.seconds else []

    @property
    def joined(self) -> Sequence[str]:
        """The text of each input, of a pair both, for its size."""
        return [first + second for first, second in self.pairs] or self.texts

    @property
    def hypotheses(self) -> list[str]:
        """The sentence of each of the given labels."""
        return [self.hypothesis_template.replace("{}", label) for label in self.labels]

    def split(self, limit: BatchTooLarge) -> list[Self] | None:
        """Return the fewest parts that respect the limit, in order; None if one input is too large by itself."""
        if self.images:
            count = len(self.images)
            most = min(limit.max_texts or (count + 1) // 2, count - 1)
            starts = range(0, count, most) if most else ()
            return [dataclasses.replace(self, images=self.images[start : start + most]) for start in starts] or None
        parts = split_texts(self.joined, limit)
        if parts is None:
            return None
        ends = list(itertools.accumulate(map(len, parts)))
        return [
            dataclasses.replace(
                self, texts=self.texts[end - len(part) : end], seconds=self.seconds[end - len(part) : end]
            )
            for part, end in zip(parts, ends, strict=True)
        ]


def _checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
    listed = tuple(iterable(labels, "a list", "labels"))
    if fault := labels_fault(listed):
        raise InvalidRequest(f"{fault}; {CONSEQUENCE}")
    return listed


def labels_fault(labels: Sequence[Any]) -> str | None:
    """Return why labels cannot be chosen from, as a sentence; None for valid ones."""
    if not labels:
        return "labels is empty; leave it out for the model's own labels"
    seen: set[str] = set()
    for index, label in enumerate(labels):
        if fault := text_fault(label):
            return f"label {index} of {len(labels)} {fault}"
        if label in seen:
            return f"the label {label[:80]!r} is given twice"
        seen.add(label)
    return None


def _checked_pairs(pairs: Sequence[Any]) -> tuple[list[str], list[str]]:
    for index, pair in enumerate(pairs):
        place = f"input {index} of {len(pairs)}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidRequest(f"{place} is not a pair of texts, and others are; {CONSEQUENCE}")
        if fault := next(filter(None, map(text_fault, pair)), None):
            raise InvalidRequest(f"a text of {place} {fault}; {CONSEQUENCE}")
    return [first for first, _ in pairs], [second for _, second in pairs]


def _checked_images(images: Sequence[Any]) -> list[bytes]:
    found = []
    for index, image in enumerate(images):
        place = f"input {index} of {len(images)}"
        if not isinstance(image, bytes | bytearray | memoryview):
            raise InvalidRequest(f"{place} is {type(image).__name__}, and others are images; {CONSEQUENCE}")
        data = bytes(image)
        if image_type(data) is None:
            size = quantity(len(data), "byte")
            raise InvalidRequest(f"{place} ({size}) is not an image of the type {SUPPORTED}; {CONSEQUENCE}")
        found.append(data)
    return found


@dataclass(frozen=True)
class ClassifyAnswer:
    """The answer of a backend to one request."""

    labels: Sequence[Sequence[Label]]
    """The labels of each input, in the order of the inputs; in any order for each."""
    usage: Usage = field(default_factory=Usage)
    """Tokens, as far as the server reported them."""
    model: str | None = None
    """The model that served, as the server reports it."""
    provider: str | None = None
    """Who ran it, if the server reports that."""
    request_id: str | None = None
    """The server's or provider's id of the request."""


@dataclass(frozen=True, kw_only=True)
class ClassifyResult(Result):
    """The labels of n inputs, in their order. A sequence of them."""

    served_by: tuple[str, ...]
    """Label of the target that classified the inputs; empty for no inputs."""
    labels: tuple[tuple[Label, ...], ...]
    """The labels of each input, the most likely first; as many as the target returned, or the first `top_k` of them."""

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Label, ...]]:
        """Iterate over the inputs' labels."""
        return iter(self.labels)

    def __getitem__(self, index: int) -> tuple[Label, ...]:
        """Return the labels of an input, the most likely first."""
        return self.labels[index]

    @property
    def best(self) -> list[Label]:
        """The most likely label of each input."""
        return [labels[0] for labels in self.labels]


def entailment(names: Sequence[str]) -> tuple[int, int] | None:
    """Return the indexes of entailment and contradiction among the labels of a model for natural language inference.

    As transformers finds them: entailment by its name, contradiction as the first of the others, which for models with
    entailment first is the last one.

    Args:
        names: the model's labels in the order of its outputs.
    """
    found = next((index for index, name in enumerate(names) if name.lower().startswith("entail")), None)
    if found is None or len(names) < 2:
        return None
    return found, (len(names) - 1 if found == 0 else 0)


def zero_shot_scores(logits: Sequence[tuple[float, float]], *, multi_label: bool) -> list[float]:
    """Return the scores of given labels from the judgements of a model for natural language inference.

    Args:
        logits: those of entailment and contradiction for the sentence of each label.
        multi_label: whether each label is scored by itself; a single label always is.
    """
    if multi_label or len(logits) == 1:
        return [softmax(pair)[0] for pair in logits]
    return softmax([entails for entails, _ in logits])


def softmax(logits: Sequence[float]) -> list[float]:
    """Return the probabilities of logits, which add up to 1, without overflow."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    whole = math.fsum(powers)
    return [power / whole for power in powers]
