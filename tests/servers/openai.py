"""OpenAI's embeddings API as vLLM, infinity and their like serve it."""

from collections.abc import Collection, Sequence
from typing import Any

from tests.servers import Embed, float32_base64, normalized, tokens, unit_vectors
from tests.servers.loopback import Loopback, Recorded, Reply


def embedding_list(vectors: Sequence[Sequence[float]], model: str, prompt_tokens: int, form: str) -> dict[str, Any]:
    """Return the body that holds `vectors`; `form` is "float" or "base64" (little-endian float32)."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": float32_base64(v) if form == "base64" else list(v)}
            for i, v in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def error(status: int, message: str, kind: str, *, code: str | int | None = None, param: str | None = None) -> Reply:
    """Return an error in OpenAI's form, which vLLM has taken over: {"error": {message, type, param, code}}."""
    return Reply(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def unprocessable(kind: str, field: str, message: str, given: Any) -> Reply:
    """Return FastAPI's 422 for a field of the body."""
    return Reply(422, {"detail": [{"type": kind, "loc": ["body", field], "msg": message, "input": given}]})


class FakeOpenAI(Loopback):
    """An OpenAI-compatible server with `models`, under `prefix`.

    `models=None` takes any name, as infinity does. `ignore_encoding_format` answers floats whatever was asked for.
    `shuffled` returns the rows backwards, each with its right `index`. More than `max_inputs` texts get
    `too_many_status`: 422 in FastAPI's form or 400 in OpenAI's. A text over `max_input_length` tokens (words + 2) gets
    vLLM's 400; without that limit nothing is too long.
    """

    def __init__(
        self,
        *,
        embed: Embed = unit_vectors,
        models: Collection[str] | None = ("sentence-transformers/all-MiniLM-L6-v2",),
        prefix: str = "/v1",
        api_key: str | None = None,
        max_inputs: int | None = None,
        too_many_status: int = 422,
        max_input_length: int | None = None,
        ignore_encoding_format: bool = False,
        shuffled: bool = False,
        usage: bool = True,
    ) -> None:
        """Start it."""
        self.embed = embed
        self.models = models
        self.prefix = prefix.rstrip("/")
        self.api_key = api_key
        self.max_inputs = max_inputs
        self.too_many_status = too_many_status
        self.max_input_length = max_input_length
        self.ignore_encoding_format = ignore_encoding_format
        self.shuffled = shuffled
        self.usage = usage
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        if request.path == "/health":
            return Reply(200)
        if self.api_key is not None and request.bearer != self.api_key:
            message = "Incorrect API key provided." if request.bearer else "You didn't provide an API key."
            return error(401, message, "invalid_request_error", code="invalid_api_key" if request.bearer else None)
        if request.path == f"{self.prefix}/models":
            return Reply(200, {"object": "list", "data": [self._model(name) for name in self.models or ()]})
        if request.path == f"{self.prefix}/embeddings":
            return self._embeddings(request) if request.method == "POST" else _detail(405, "Method Not Allowed")
        return _detail(404, "Not Found")

    def _embeddings(self, request: Recorded) -> Reply:
        try:
            body = request.json
        except ValueError:
            return unprocessable("json_invalid", "0", "JSON decode error", {})
        if "input" not in body:
            return unprocessable("missing", "input", "Field required", body)
        form = body.get("encoding_format", "float")
        if form not in ("float", "base64"):
            return unprocessable("enum", "encoding_format", "Input should be 'float' or 'base64'", form)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        refusal = self._refusal(body.get("model"), texts)
        if refusal is not None:
            return refusal
        vectors = self.embed(texts)
        if dimensions := body.get("dimensions"):
            vectors = [normalized(vector[:dimensions]) for vector in vectors]
        count = sum(len(tokens(text)) for text in texts)
        form = "float" if self.ignore_encoding_format else form
        answer = embedding_list(vectors, body.get("model") or "", count, form)
        if self.shuffled:
            answer["data"].reverse()
        if not self.usage:
            del answer["usage"]
        return Reply(200, answer)

    def _refusal(self, model: str | None, texts: list[Any]) -> Reply | None:
        if self.models is not None and model not in self.models:
            return error(404, f"The model `{model}` does not exist.", "NotFoundError", code=404, param="model")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                return unprocessable("string_type", "input", "Input should be a valid string", texts[index])
        if not texts:
            message = "List should have at least 1 item after validation, not 0"
            return unprocessable("too_short", "input", message, texts)
        if self.max_inputs is not None and len(texts) > self.max_inputs:
            message = f"List should have at most {self.max_inputs} items after validation, not {len(texts)}"
            if self.too_many_status == 422:
                return unprocessable("too_long", "input", message, texts)
            return error(self.too_many_status, message, "BadRequestError", code=self.too_many_status, param="input")
        limit = self.max_input_length
        longest = max(len(tokens(text)) for text in texts)
        if limit is not None and longest > limit:
            message = (
                f"This model's maximum context length is {limit} tokens. However, you requested {longest} tokens "
                "in the input for embedding generation. Please reduce the length of the input."
            )
            return error(400, message, "BadRequestError", code=400)
        return None

    def _model(self, name: str) -> dict[str, Any]:
        limit = self.max_input_length
        return {"id": name, "object": "model", "created": 1763600000, "owned_by": "vllm", "max_model_len": limit}


def _detail(status: int, message: str) -> Reply:
    return Reply(status, {"detail": message})
