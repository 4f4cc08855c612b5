"""text-embeddings-inference, HTTP: `router/src/http/server.rs` and `core/src/tokenization.rs` of huggingface/TEI."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

from tests.servers import Embed, normalized, tokens, truncated, unit_vectors
from tests.servers.labels import LABELS, label_list
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.openai import embedding_list
from tests.servers.rerank import Score, pair_tokens, probability, shared_words

_STATUS = {"Unhealthy": 503, "Backend": 424, "Overloaded": 429, "Validation": 422, "Tokenizer": 422, "Empty": 400}
_EMBED = ("/embed", "/")
_OPENAI = ("/v1/embeddings", "/embeddings")
_PREDICT = "/predict"
_SPARSE = "/embed_sparse"
VOCABULARY = 30522
"""Words that a SPLADE model gives weights to."""


def word_weights(texts: list[str]) -> list[list[dict[str, Any]]]:
    """Return n sparse vectors: one entry for each word, at a hash of it, heavier if it is repeated."""
    return [
        [{"index": crc32(word.encode()) % VOCABULARY, "value": 0.5 + count / 4} for word, count in words.items()]
        for words in (Counter(text.lower().split()) for text in texts)
    ]


def error(kind: str, message: str, *, openai: bool = False) -> Reply:
    """Return TEI's error of an `ErrorType` (Unhealthy, Backend, Overloaded, Validation, Tokenizer, Empty).

    Its status follows from the kind. On the OpenAI routes the body is {message, code, type}: the schema says
    `error_type`, the server renames it.
    """
    status = _STATUS[kind]
    if openai:
        return Reply(status, {"message": message, "code": status, "type": kind})
    return Reply(status, {"error": message, "error_type": kind})


def overloaded(*, openai: bool = False) -> Reply:
    """Return the 429 of a full queue; TEI sends no Retry-After with it."""
    return error("Overloaded", "Model is overloaded", openai=openai)


class _Refused(Exception):
    """A request that ends in an error of this kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message


class FakeTEI(Loopback):
    """A TEI that serves `model_id`; its tokens are words, plus two.

    `model_type` is "embedding", "reranker" or "classifier" (which refuse to embed, with 424); a classifier has `labels`, a
    reranker has `score`. `auto_truncate` is what happens to a text over `max_input_length` when the request does not
    say; like the real server's, it defaults to True.
    With `pooling="splade"` it answers `/embed_sparse`, with `sparse`.
    `prompts` are what `prompt_name` chooses from. With an `api_key` everything but the health routes needs it.
    """

    def __init__(
        self,
        *,
        embed: Embed = unit_vectors,
        sparse: Callable[[list[str]], Any] = word_weights,
        model_id: str = "sentence-transformers/all-MiniLM-L6-v2",
        model_sha: str | None = None,
        max_client_batch_size: int = 32,
        max_input_length: int = 256,
        payload_limit: int = 2_000_000,
        auto_truncate: bool = True,
        api_key: str | None = None,
        prompts: Mapping[str, str] | None = None,
        pooling: str = "mean",
        version: str = "1.9.3",
        model_type: str = "embedding",
        model_dtype: str = "float32",
        labels: Sequence[str] = LABELS,
        score: Score = shared_words,
    ) -> None:
        """Start it."""
        self.score = score
        self.embed = embed
        self.sparse = sparse
        self.model_id = model_id
        self.model_sha = model_sha
        self.max_client_batch_size = max_client_batch_size
        self.max_input_length = max_input_length
        self.payload_limit = payload_limit
        self.auto_truncate = auto_truncate
        self.api_key = api_key
        self.prompts = prompts or {}
        self.pooling = pooling
        self.version = version
        self.model_type = model_type
        self.model_dtype = model_dtype
        self.labels = labels
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        if request.method == "GET" and request.path in ("/health", "/ping", "/"):
            return Reply(200)
        if request.path not in ("/info", "/rerank", _PREDICT, _SPARSE, *_EMBED, *_OPENAI):
            return Reply(404)
        if request.method != ("GET" if request.path == "/info" else "POST"):
            return Reply(405)
        if self.api_key is not None and request.bearer != self.api_key:
            return Reply(401)
        if request.path == "/info":
            return Reply(200, self._info())
        if len(request.body) > self.payload_limit:
            return Reply(413, "Failed to buffer the request body: length limit exceeded")
        if request.path == _PREDICT or (request.path == "/" and self.model_type == "classifier"):
            return self._predictions(request)
        if request.path == "/rerank":
            return self._rerank(request)
        return self._embeddings(request, openai=request.path in _OPENAI)

    def _predictions(self, request: Recorded) -> Reply:
        """Label texts: a text, a pair, or a list of lists of one text or two."""
        body = request.json
        inputs = body["inputs"]
        single = isinstance(inputs, str) or (len(inputs) == 2 and all(isinstance(text, str) for text in inputs))
        batch = [[inputs] if isinstance(inputs, str) else inputs] if single else inputs
        if not all(isinstance(entry, list) and len(entry) in (1, 2) for entry in batch):
            return Reply(422, "Failed to deserialize the JSON body into the target type: inputs: data did not match")
        try:
            texts = self._classified(batch, body)
        except _Refused as refused:
            return error(refused.kind, refused.message)
        found = [label_list(text, self.labels, raw=body.get("raw_scores", False)) for text in texts]
        count = sum(len(tokens(text)) for text in texts)
        headers = _compute_headers(characters=sum(map(len, texts)), tokens=count)
        return Reply(200, found[0] if single else found, headers)

    def _classified(self, batch: list[list[str]], body: Mapping[str, Any]) -> list[str]:
        """Return the inputs as the model gets them, a pair on two lines, or raise what the server refuses them with."""
        if len(batch) > self.max_client_batch_size:
            limit = self.max_client_batch_size
            raise _Refused("Validation", f"batch size {len(batch)} > maximum allowed batch size {limit}")
        if self.model_type != "classifier":
            raise _Refused("Backend", "Backend error: Model is not a Sequence Classification model")
        truncate = self.auto_truncate if body.get("truncate") is None else body["truncate"]
        for entry in batch:
            given = sum(len(tokens(text)) - 1 for text in entry) + 1
            if not truncate and given > self.max_input_length:
                raise _invalid(f"`inputs` must have less than {self.max_input_length} tokens. Given: {given}")
        return ["\n".join([truncated(entry[0], self.max_input_length), *entry[1:]]) for entry in batch]

    def _rerank(self, request: Recorded) -> Reply:
        body = request.json
        missing = next((name for name in ("query", "texts") if name not in body), None)
        if missing is not None:
            fault = f"missing field `{missing}` at line 1 column 2"
            return Reply(422, f"Failed to deserialize the JSON body into the target type: {fault}")
        query, texts, limit = body["query"], body["texts"], self.max_input_length
        if not texts:
            return error("Empty", "`texts` cannot be empty")
        if len(texts) > self.max_client_batch_size:
            most = self.max_client_batch_size
            return error("Validation", f"batch size {len(texts)} > maximum allowed batch size {most}")
        if self.model_type != "reranker":
            return error("Backend", "Backend error: Model is not a re-ranker model")
        truncate = self.auto_truncate if body.get("truncate") is None else body["truncate"]
        given = max(pair_tokens(query, text) for text in texts)
        if given > limit and not truncate:
            return error(
                "Validation", f"Input validation error: `inputs` must have less than {limit} tokens. Given: {given}"
            )
        logits = [self.score(query, text) for text in texts]
        scores = logits if body.get("raw_scores") else list(map(probability, logits))
        ranks = [{"index": index, "score": score} for index, score in enumerate(scores)]
        for rank in ranks if body.get("return_text") else ():
            rank["text"] = texts[int(rank["index"])]
        used = sum(min(pair_tokens(query, text), limit) for text in texts)
        headers = _compute_headers(characters=sum(map(len, texts)), tokens=used)
        return Reply(200, sorted(ranks, key=lambda rank: -rank["score"]), headers)

    def _embeddings(self, request: Recorded, *, openai: bool) -> Reply:
        try:
            body = request.json
        except ValueError:
            return Reply(400, "Failed to parse the request body as JSON: expected value at line 1 column 1")
        fault = _misfit(body, openai=openai)
        if fault:
            return Reply(422, f"Failed to deserialize the JSON body into the target type: {fault}")
        inputs = body["input" if openai else "inputs"]
        # These fields are /embed's own; TEI's OpenAI route has no say about them.
        own = {} if openai else body
        try:
            texts = self._texts(inputs, own)
            if request.path == _SPARSE:
                if self.pooling != "splade":
                    raise _Refused("Backend", "Backend error: Model is not an embedding model with SPLADE pooling")
                return Reply(200, self.sparse(texts), self._headers(inputs, texts))
            vectors = self._vectors(texts, body.get("dimensions"), normalize=own.get("normalize", True))
        except _Refused as refused:
            return error(refused.kind, refused.message, openai=openai)
        count, headers = sum(len(tokens(text)) for text in texts), self._headers(inputs, texts)
        if openai:
            form = body.get("encoding_format", "float")
            return Reply(200, embedding_list(vectors, self.model_id, count, form), headers)
        return Reply(200, vectors, headers)

    def _headers(self, inputs: Any, texts: list[str]) -> dict[str, str]:
        count = sum(len(tokens(text)) for text in texts)
        return _compute_headers(characters=sum(map(len, _batch(inputs))), tokens=count)

    def _texts(self, inputs: Any, body: Mapping[str, Any]) -> list[str]:
        """Return the texts as the model gets them, or raise what the server refuses them with."""
        if inputs == []:
            raise _Refused("Empty", "`inputs` cannot be empty")
        batch = _batch(inputs)
        if len(batch) > self.max_client_batch_size:
            limit = self.max_client_batch_size
            raise _Refused("Validation", f"batch size {len(batch)} > maximum allowed batch size {limit}")
        if self.model_type != "embedding":
            raise _Refused("Backend", "Backend error: Model is not an embedding model")
        prompt = self._prompt(body.get("prompt_name"))
        truncate = self.auto_truncate if body.get("truncate") is None else body["truncate"]
        left = str(body.get("truncation_direction", "Right")).lower() == "left"
        texts = []
        for entry in batch:
            if not entry:
                raise _invalid("`inputs` cannot be empty")
            text = prompt + (entry if isinstance(entry, str) else " ".join(map(str, entry)))
            given = len(tokens(text))
            if not truncate and given > self.max_input_length:
                raise _invalid(f"`inputs` must have less than {self.max_input_length} tokens. Given: {given}")
            texts.append(truncated(text, self.max_input_length, left=left))
        return texts

    def _prompt(self, name: str | None) -> str:
        if name is None:
            return ""
        if name in self.prompts:
            return self.prompts[name]
        # The real message blames `default-prompt-name` for a `prompt_name` too.
        fault = f"`default-prompt-name` is set to `{name}` but "
        if not self.prompts:
            raise _invalid(fault + "no prompts were found in the Sentence Transformers configuration")
        names = "[" + ", ".join(f'"{known}"' for known in self.prompts) + "]"
        raise _invalid(fault + f"it was not found in the Sentence Transformers prompts. Available prompts: {names}")

    def _vectors(self, texts: list[str], dimensions: int | None, *, normalize: bool) -> list[Any]:
        vectors = [vector[:dimensions] for vector in self.embed(texts)]
        return [_finite(normalized(vector) if normalize else vector) for vector in vectors]

    def _info(self) -> dict[str, Any]:
        labels = {
            "id2label": {str(number): label for number, label in enumerate(self.labels)},
            "label2id": {label: number for number, label in enumerate(self.labels)},
        }
        return {
            "model_id": self.model_id,
            "model_sha": self.model_sha,
            "model_dtype": self.model_dtype,
            "served_model_name": self.model_id,
            "model_type": {self.model_type: {"pooling": self.pooling} if self.model_type == "embedding" else labels},
            "max_concurrent_requests": 512,
            "max_input_length": self.max_input_length,
            "max_batch_tokens": 16384,
            "max_batch_requests": None,
            "max_client_batch_size": self.max_client_batch_size,
            "auto_truncate": self.auto_truncate,
            "tokenization_workers": 8,
            "version": self.version,
            "sha": None,
            "docker_label": None,
        }


def _invalid(message: str) -> _Refused:
    """Wrap a refusal of the model's own checks, which carries this prefix; the batch size check does not."""
    return _Refused("Validation", f"Input validation error: {message}")


def _batch(inputs: Any) -> list[Any]:
    """Return `inputs` as a list: a string and a list of token ids are one input each."""
    if isinstance(inputs, str) or (inputs and all(isinstance(entry, int) for entry in inputs)):
        return [inputs]
    return list(inputs)


def _misfit(body: Any, *, openai: bool) -> str | None:
    """Say what keeps `body` from being the route's request type."""
    name = "input" if openai else "inputs"
    if not isinstance(body, dict) or name not in body:
        return f"missing field `{name}` at line 1 column 2"
    inputs = body[name]
    entries = inputs if isinstance(inputs, list) else [inputs]
    if not all(isinstance(entry, str | int | list) for entry in entries) or isinstance(inputs, int):
        return f"{name}: data did not match any variant of untagged enum Input at line 1 column 10"
    if openai and body.get("encoding_format", "float") not in ("float", "base64"):
        return "encoding_format: unknown variant, expected `float` or `base64` at line 1 column 10"
    if not isinstance(body.get("normalize", True), bool):
        return "normalize: invalid type, expected a boolean at line 1 column 10"
    return None


def _finite(vector: list[float]) -> list[float | None]:
    """Return the vector as serde_json writes it: what is not a number becomes null."""
    if math.isfinite(sum(vector)):
        return list(vector)
    return [value if math.isfinite(value) else None for value in vector]


def _compute_headers(*, characters: int, tokens: int) -> dict[str, str]:
    times = dict.fromkeys(("x-compute-time", "x-total-time", "x-inference-time"), "3")
    times |= dict.fromkeys(("x-tokenization-time", "x-queue-time"), "0")
    counts = {"x-compute-characters": str(characters), "x-compute-tokens": str(tokens)}
    return {"x-compute-type": "cpu", **times, **counts}
