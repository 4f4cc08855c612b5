"""What the fakes classify with: logits from a hash of the text, and the forms in which servers write labels."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from tests.servers import tokens
from tests.servers.loopback import Loopback, Recorded, Reply

LABELS = ("negative", "neutral", "positive")
NLI = ("contradiction", "neutral", "entailment")
"""Labels of a model for natural language inference."""


def logits(text: str | bytes, labels: Sequence[str] = LABELS) -> list[float]:
    """Return a logit from -3 to 3 for each label: equal texts, equal logits."""
    data = text if isinstance(text, bytes) else text.encode()
    digest = hashlib.shake_256(data).digest(2 * len(labels))
    return [int.from_bytes(digest[at : at + 2], "little") / 65535 * 6 - 3 for at in range(0, 2 * len(labels), 2)]


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def label_list(text: str | bytes, labels: Sequence[str] = LABELS, *, raw: bool = False) -> list[dict[str, Any]]:
    """Return the labels of a text with their scores, the highest first, as servers do."""
    found = logits(text, labels)
    scores = found if raw else softmax(found)
    entries = [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    return sorted(entries, key=lambda entry: -float(entry["score"]))


def expected(text: str | bytes, labels: Sequence[str] = LABELS, *, raw: bool = False) -> list[tuple[str, float]]:
    """Return what a gateway makes of the labels of a text."""
    return [(str(entry["label"]), entry["score"]) for entry in label_list(text, labels, raw=raw)]


def zero_shot(text: str, labels: Sequence[str], template: str = "This example is {}.") -> dict[str, float]:
    """Return the scores that add up to 1, of labels that a model with the labels of NLI judges in pairs."""
    entails = [logits(f"{text}\n{template.format(label)}", NLI)[2] for label in labels]
    return dict(zip(labels, softmax(entails), strict=True))


def paired(text: str, labels: Sequence[str], template: str = "This example is {}.") -> dict[str, Any]:
    """Return the answer of transformers' pipeline for zero-shot classification."""
    ranked = sorted(zero_shot(text, labels, template).items(), key=lambda item: -item[1])
    return {"sequence": text, "labels": [label for label, _ in ranked], "scores": [score for _, score in ranked]}


def run_pipeline(kind: str, body: dict[str, Any], default: int | None) -> Any:
    """Return what a pipeline of transformers answers to `inputs` and `parameters`; default: labels without `top_k`."""
    parameters = body.get("parameters") or {}
    if kind == "zero-shot-classification":
        return paired(body["inputs"], parameters["candidate_labels"], parameters.get("hypothesis_template", ""))
    raw = parameters.get("function_to_apply") == "none"
    return label_list(_joined(body["inputs"]), raw=raw)[: parameters.get("top_k", default)]


def _joined(inputs: Any) -> Any:
    """Return what a pipeline labels: a pair on two lines."""
    return f"{inputs['text']}\n{inputs['text_pair']}" if isinstance(inputs, dict) else inputs


class FakeToolkit(Loopback):
    """An Inference Endpoint with the inference toolkit: one pipeline, at the root path.

    It takes the parameters of an image from the query, and answers its own faults with 400.
    """

    def __init__(self, pipeline: str = "text-classification", *, token: str | None = None, limit: int = 64) -> None:
        """Start it. limit: of a text's tokens, without truncation."""
        self.pipeline = pipeline
        self.token = token
        self.limit = limit
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        if self.token is not None and request.bearer != self.token:
            return Reply(401, {"error": "Unauthorized"})
        if request.method == "GET":
            return Reply(200, "Ok") if request.path in ("/", "/health") else Reply(404, "Not Found")
        if request.path not in ("/", "/predict"):
            return Reply(404, "Not Found")
        if request.headers["content-type"].startswith("image/"):
            query = {name: values[0] for name, values in request.query.items()}
            parameters = {name: int(value) if name == "top_k" else value for name, value in query.items()}
            return Reply(200, run_pipeline(self.pipeline, {"inputs": request.body, "parameters": parameters}, 5))
        body = request.json
        given = len(tokens(_joined(body["inputs"])))
        if given > self.limit and not (body.get("parameters") or {}).get("truncation") and "zero" not in self.pipeline:
            message = f"The size of tensor a ({given}) must match the size of tensor b ({self.limit}) at non-singleton "
            return Reply(400, {"error": f"{message}dimension 1"})
        return Reply(200, run_pipeline(self.pipeline, body, 1))
