"""Classification by text-embeddings-inference."""

from collections.abc import Iterator, Sequence

from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.backends.tei import TeiAbility
from hf_gateway.errors import BadResponse, BatchTooLarge, ModelNotFound, Unsupported
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.http import json_size
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest, Label, entailment, zero_shot_scores
from hf_gateway.values.usage import sum_usage
from hf_gateway.wire import tei

Pair = tuple[str, str]
"""Two texts, such as a text and the sentence of a label."""
ENVELOPE_BYTES = 4096
"""Reserved for the rest of a body around the pairs."""


class Prediction:
    """`/predict`, for labels of the model, and for labels of the caller if the model judges entailment.

    Args:
        ability: sends the requests.
        url: the server's base URL.
    """

    def __init__(self, ability: ClassifyAbility, url: str) -> None:
        self._ability = ability
        self._url = url

    def of(self, request: ClassifyRequest, info: tei.Info) -> Effects:
        """Label each text or pair of a batch; returns a `ClassifyAnswer`.

        Args:
            request: texts or pairs.
            info: the server's report.

        Raises:
            Unsupported: labels of the caller, and a model without entailment among its labels.
        """
        if not request.labels:
            given: Sequence[Sequence[str]] = request.pairs or [(text,) for text in request.texts]
            return (yield from self._predict(request, given, raw_scores=request.scale == "logit"))
        found, label = entailment(info.labels), self._ability.target.label
        if found is None:
            raise Unsupported(
                f"serves {info.model}, which knows its own labels only ({', '.join(info.labels)}); labels of your own need a "
                "model for natural language inference",
                target=label,
            )
        names = [info.labels[place] for place in found]
        pairs = [(text, hypothesis) for text in request.texts for hypothesis in request.hypotheses]
        answers: list[ClassifyAnswer] = []
        for part in _parts(pairs, info.max_texts, self._ability.max_bytes):  # one text may have more labels than fit
            answers += [(yield from self._predict(request, part, raw_scores=True))]
        logits = [_scores_of(labels, names, label) for answer in answers for labels in answer.labels]
        width = len(request.labels)
        scored = [
            zero_shot_scores(logits[start : start + width], multi_label=request.multi_label)
            for start in range(0, len(logits), width)
        ]
        labels = [list(map(Label, request.labels, scores)) for scores in scored]
        return ClassifyAnswer(labels, sum_usage([answer.usage for answer in answers]))

    def _predict(self, request: ClassifyRequest, inputs: Sequence[Sequence[str]], *, raw_scores: bool) -> Effects:
        message = tei.encode_predict(self._url, inputs, truncate=request.truncate, raw_scores=raw_scores)
        response = yield from self._ability.ask(message)
        return tei.decode_predict(response, len(inputs), target=self._ability.target.label)


def _parts(pairs: Sequence[Pair], most: int, max_bytes: int) -> Iterator[list[Pair]]:
    """Divide pairs by their number and their bytes; a pair that is too large is a part by itself."""
    part: list[Pair] = []
    room = max_bytes - ENVELOPE_BYTES
    for pair in pairs:
        size = sum(map(json_size, pair)) + 3
        if part and (len(part) >= most or size > room):
            yield part
            part, room = [], max_bytes - ENVELOPE_BYTES
        part.append(pair)
        room -= size
    yield part


def _scores_of(labels: Sequence[Label], names: Sequence[str], target: str) -> tuple[float, float]:
    """Return the scores of two labels."""
    scores = {each.label: each.score for each in labels}
    if not scores.keys() >= set(names):
        raise BadResponse(f"answered without the labels {' and '.join(names)}", target=target)
    first, second = (scores[name] for name in names)
    return first, second


def check_texts_at_once(request: ClassifyRequest, most: int, max_bytes: int) -> None:
    """Raise BatchTooLarge for more inputs of the model than a server takes: each text counts once for each given label.

    Args:
        request: texts.
        most: inputs that the server takes at once.
        max_bytes: maximum of a request.
    """
    texts = max(1, most // max(1, len(request.labels)))
    if len(request.texts) > texts:
        raise BatchTooLarge(f"takes {most} inputs at once", max_texts=texts, max_bytes=max_bytes)


class TeiClassify(TeiAbility, ClassifyAbility):
    """Calls `/predict`, within the limits of `/info`."""

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        self.refuse_images(request)
        info: tei.Info = yield from self.fetch_info()
        self.check_count(request)
        check_texts_at_once(request, self.most_texts, self.max_bytes)
        return (yield from Prediction(self, self.server.base_url).of(request, info))

    def limits(self, info: tei.Info) -> str:
        """Return how many labels the model has, and how many texts the server takes at once."""
        return f"{len(info.labels)} labels, {info.max_texts} texts at once"

    def check_info(self, info: tei.Info) -> None:
        """Raise ModelNotFound for a server whose model does not label texts."""
        check_classifier(info, self.target.label)


def check_classifier(info: tei.Info, target: str) -> None:
    """Raise ModelNotFound for a server whose model does not label texts.

    Args:
        info: the server's report.
        target: label for errors.
    """
    if info.kind != tei.CLASSIFIER:
        raise ModelNotFound(f"serves {info.model}, whose type is {info.kind}, and not a classifier", target=target)
