"""Labels of texts from the logits of a model, whatever computes them, with the scores of transformers' pipelines."""

from collections.abc import Sequence
from typing import Any, Protocol

from hf_gateway.engines.tokenising import Part
from hf_gateway.errors import ContextOverflow, Unsupported
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest, Label, entailment, softmax, zero_shot_scores
from hf_gateway.values.rerank import ModelScale
from hf_gateway.values.usage import Usage

Texts = Sequence[str] | Sequence[tuple[str, str]]
"""Texts, or pairs of texts, such as a text and the sentence of a label."""


class TextModel(Protocol):
    """A loaded model for labels of texts."""

    labels: list[str]
    problem_type: str | None
    """Setting of its config.json that says how its scores are made."""
    limit: int | None
    """Maximum tokens of a text, or of a pair; None without a limit."""

    def tokens(self, texts: Texts) -> list[Any]:
        """Tokenise n texts or pairs, without truncation; each result has a length."""

    def cut(self, text: str | tuple[str, str], part: Part = "longest_first") -> Any:
        """Tokenise a text or a pair, truncated to the limit.

        Args:
            text: the text or the pair.
            part: what of a pair is truncated.
        """

    def logits(self, rows: Sequence[Any]) -> Sequence[Sequence[float]]:
        """Return the logits of n tokenised texts. Raises EngineFailed."""


def classify_texts(model: TextModel, request: ClassifyRequest) -> ClassifyAnswer:
    """Label texts.

    Args:
        model: computes the logits.
        request: what to label.

    Raises:
        ContextOverflow: a text is too long, unless `truncate`.
        Unsupported: images, or labels of the caller for a model without entailment among its own.
        EngineFailed: the model failed.
    """
    if request.images:
        raise Unsupported("labels texts, and does not accept images")
    if not request.labels:
        rows = _tokenised(model, request)
        named = [scored(model.labels, model.problem_type, logits, request.scale) for logits in model.logits(rows)]
        return ClassifyAnswer(named, Usage(sum(map(len, rows))))
    found = entailment(model.labels)
    if found is None:
        raise Unsupported(
            f"knows its own labels only ({', '.join(model.labels)}); labels of your own need a model for natural language "
            "inference"
        )
    rows = _tokenised(model, request)
    judged = [(float(logits[found[0]]), float(logits[found[1]])) for logits in model.logits(rows)]
    width = len(request.labels)
    scores = [
        zero_shot_scores(judged[start : start + width], multi_label=request.multi_label)
        for start in range(0, len(judged), width)
    ]
    return ClassifyAnswer([list(map(Label, request.labels, each)) for each in scores], Usage(sum(map(len, rows))))


def scored(labels: Sequence[str], problem_type: str | None, logits: Sequence[float], scale: ModelScale) -> list[Label]:
    """Return the labels with the scores that transformers' pipelines compute by the model's configuration.

    Args:
        labels: the names of the labels.
        problem_type: the setting of config.json.
        logits: one for each label.
        scale: what the scores are to be.
    """
    values = list(map(float, logits))
    if problem_type == "regression" or scale == "logit":
        scores = values
    elif problem_type == "multi_label_classification" or len(values) == 1:
        scores = [softmax((value, 0.0))[0] for value in values]  # each by itself: the sigmoid
    else:
        scores = softmax(values)
    return list(map(Label, labels, scores))


def _tokenised(model: TextModel, request: ClassifyRequest) -> list[Any]:
    """Return the tokens of the texts or pairs, or of each text with the sentence of each label."""
    sentences: list[str | None] = [*request.hypotheses] or [None]
    inputs = request.pairs or [_pair(text, sentence) for text in request.texts for sentence in sentences]
    rows = model.tokens(inputs)
    limit = model.limit
    for index, row in enumerate(rows):
        if limit is None or (length := len(row)) <= limit:
            continue
        place, sentence = index // len(sentences), sentences[index % len(sentences)]
        named = f"input {place} of {len(request.texts)}"
        if not request.truncate:
            beside = "" if sentence is None else f", with the sentence {sentence[:80]!r},"
            raise ContextOverflow(
                f"{named} has{beside} {length} tokens, but the model's limit is {limit}; split it, or pass "
                "truncate=True to drop the rest",
                limit=limit,
                length=length,
                place=place,
            )
        if sentence is not None and len(model.tokens([("", sentence)])[0]) >= limit:
            raise ContextOverflow(
                f"{named} cannot be truncated to fit: the sentence {sentence[:80]!r} leaves no room for a text within the "
                f"model's limit of {limit} tokens",
                limit=limit,
                place=place,
            )
        rows[index] = model.cut(inputs[index], "longest_first" if sentence is None else "only_first")
    return rows


def _pair(text: str, sentence: str | None) -> Any:
    return text if sentence is None else (text, sentence)
