"""Ollama's own API: `docs/openapi.yaml`, and `server/routes.go` for what the description leaves out."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from tests.servers import Embed, normalized, tokens, truncated, unit_vectors
from tests.servers.loopback import Loopback, Recorded, Reply

BUSY = Reply(503, {"error": "server busy, please try again.  maximum pending requests exceeded"})
"""The answer of a full queue."""

SIGNIN_URL = "https://ollama.com/connect?name=loopback&key=c3NoLWVkMjU1MTk"
_MODIFIED = "2026-08-21T10:00:00.123456789+02:00"


class FakeOllama(Loopback):
    """An Ollama with `models` pulled: name → what is special about it.

    A model may say `embedding_length` (384), `context_length` (512), `capabilities` (["embedding"]), `family` ("bert"),
    and `remote_host`, which makes it a cloud model: 401 with a sign-in URL unless `signed_in`. A name without a tag
    means `:latest`. Tokens are words, plus two. `embed` gets texts already truncated; the default makes vectors of the
    model's own `embedding_length`.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        embed: Embed | None = None,
        version: str = "0.40.1",
        signed_in: bool = False,
    ) -> None:
        """Start it; without `models` it has pulled all-minilm."""
        pulled = {"all-minilm": {"embedding_length": 384, "context_length": 512}} if models is None else models
        self.models = {_tagged(name): dict(model) for name, model in pulled.items()}
        self.embed = embed
        self.version = version
        self.signed_in = signed_in
        self._loaded: set[str] = set()
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        match request.method, request.path:
            case "GET" | "HEAD", "/":
                return Reply(200, "Ollama is running")
            case "GET", "/api/version":
                return Reply(200, {"version": self.version})
            case "GET", "/api/tags":
                return Reply(200, {"models": [self._summary(name) for name in self.models]})
            case "GET", "/api/ps":
                return Reply(200, {"models": [self._running(name) for name in sorted(self._loaded)]})
            case "POST", "/api/show":
                return self._posted(request, self._show)
            case "POST", "/api/embed":
                return self._posted(request, self._embeddings)
        return Reply(404, "404 page not found")

    def _posted(self, request: Recorded, answer: Any) -> Reply:
        if not request.body:
            return _error(400, "missing request body")
        try:
            body = request.json
        except ValueError:
            return _error(400, "invalid character 'n' looking for beginning of value")
        reply: Reply = answer(body)
        return reply

    def _embeddings(self, body: dict[str, Any]) -> Reply:
        name = body.get("model", "")
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return _error(400, "invalid input type")
        model = self.models.get(_tagged(name))
        if model is None:
            return _error(404, f"model '{name}' not found")
        if model.get("remote_host") and not self.signed_in:
            return Reply(401, {"error": "unauthorized", "signin_url": SIGNIN_URL})
        if "embedding" not in self._capabilities(model):
            return _error(400, f'"{name}" does not support embeddings')
        self._loaded.add(_tagged(name))
        if not texts or given == "":
            return Reply(200, {"model": name, "embeddings": []})
        limit = min(model.get("context_length", 512), (body.get("options") or {}).get("num_ctx", 1 << 30))
        if body.get("truncate") is False and any(len(tokens(text)) > limit for text in texts):
            return _error(400, "the input length exceeds the context length")
        texts = [truncated(text, limit) for text in texts]
        vectors = self.embed(texts) if self.embed else unit_vectors(texts, model.get("embedding_length", 384))
        if not all(math.isfinite(sum(vector)) for vector in vectors):
            return _error(400, "embedding contains NaN or Inf values")
        # Normalised by the server, and again after the cut, which 0 and more than there is do not make.
        vectors = [normalized(vector[: body.get("dimensions") or None]) for vector in vectors]
        answer = {"model": name, "embeddings": vectors, "total_duration": 14_143_917, "load_duration": 1_019_500}
        return Reply(200, answer | {"prompt_eval_count": sum(len(tokens(text)) for text in texts)})

    def _show(self, body: dict[str, Any]) -> Reply:
        name = body.get("model") or body.get("name")
        if not name:
            return _error(400, "model is required")
        model = self.models.get(_tagged(name))
        if model is None:
            return _error(404, f"model '{name}' not found")
        family = model.get("family", "bert")
        return Reply(
            200,
            {
                "license": "Apache License\nVersion 2.0, January 2004",
                "parameters": f"num_ctx                        {model.get('context_length', 512)}",
                "template": "{{ .Prompt }}",
                "details": self._details(model),
                "model_info": {
                    "general.architecture": family,
                    f"{family}.context_length": model.get("context_length", 512),
                    f"{family}.embedding_length": model.get("embedding_length", 384),
                },
                "capabilities": self._capabilities(model),
                "modified_at": _MODIFIED,
                **_remote(name, model),
            },
        )

    def _summary(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        lengths = {key: model.get(key, size) for key, size in (("context_length", 512), ("embedding_length", 384))}
        return {
            "name": name,
            "model": name,
            "modified_at": _MODIFIED,
            "size": 45_960_996,
            "digest": _digest(name),
            "details": self._details(model) | lengths,
            "capabilities": self._capabilities(model),
            **_remote(name, model),
        }

    def _running(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        return {
            "name": name,
            "model": name,
            "size": 52_000_000,
            "digest": _digest(name),
            "details": self._details(model),
            "expires_at": "2026-11-20T10:05:00.07933-07:00",
            "size_vram": 0,
            "context_length": model.get("context_length", 512),
        }

    def _capabilities(self, model: Mapping[str, Any]) -> list[str]:
        return list(model.get("capabilities", ["embedding"]))

    def _details(self, model: Mapping[str, Any]) -> dict[str, Any]:
        family = model.get("family", "bert")
        return {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": "23M",
            "quantization_level": "F16",
        }


def _tagged(name: str) -> str:
    """Return the name with its tag; `latest` is the one that goes without saying."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _remote(name: str, model: Mapping[str, Any]) -> dict[str, str]:
    host = model.get("remote_host")
    return {"remote_host": host, "remote_model": name.partition(":")[0]} if host else {}


def _error(status: int, message: str) -> Reply:
    return Reply(status, {"error": message})
