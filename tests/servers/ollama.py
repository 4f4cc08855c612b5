"""Ollama's own API: `docs/openapi.yaml`, and `server/routes.go` for what the description leaves out."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from tests.servers import Embed, normalized, tokens, truncated, unit_vectors
from tests.servers.chat import Brain, Said, arguments_json, default_brain, pieces
from tests.servers.loopback import Loopback, Recorded, Reply, Stream

BUSY = Reply(503, {"error": "server busy, please try again.  maximum pending requests exceeded"})
"""The answer of a full queue."""

SIGNIN_URL = "https://ollama.com/connect?name=loopback&key=c3NoLWVkMjU1MTk"
_MODIFIED = "2026-08-21T10:00:00.123456789+02:00"
_CREATED = "2026-11-20T10:00:00.123456789Z"
_numbers = count(1)


class FakeOllama(Loopback):
    """An Ollama with `models` pulled: name → what is special about it.

    A model may say `embedding_length` (384), `context_length` (512), `capabilities` (["embedding"]), `family` ("bert"),
    `quantization` ("F16"), `pooling_type` (unsaid), `num_ctx` (its context_length), and `remote_host`, which makes it a
    cloud model: 401 with a sign-in URL unless `signed_in`. A name without a tag means `:latest`. Tokens are words, plus
    two. `embed` gets texts already truncated; the default makes vectors of the model's own `embedding_length`.

    Models with the capability "completion" chat, with `brain`; "tools" and "thinking" are capabilities too, and a model
    that thinks does so unless it is told not to. With `tool_ids` the calls have ids, as they have had since 2025.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        embed: Embed | None = None,
        version: str = "0.40.1",
        signed_in: bool = False,
        brain: Brain = default_brain,
        tool_ids: bool = True,
    ) -> None:
        """Start it; without `models` it has pulled all-minilm."""
        pulled = {"all-minilm": {"embedding_length": 384, "context_length": 512}} if models is None else models
        self.models = {_tagged(name): dict(model) for name, model in pulled.items()}
        self.embed = embed
        self.version = version
        self.signed_in = signed_in
        self.brain = brain
        self.tool_ids = tool_ids
        self._loaded: set[str] = set()
        super().__init__()

    def handle(self, request: Recorded) -> Reply | Stream:
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
            case "POST", "/api/chat":
                return self._posted(request, self._chat)
        return Reply(404, "404 page not found")

    def _posted(self, request: Recorded, answer: Any) -> Reply | Stream:
        if not request.body:
            return _error(400, "missing request body")
        try:
            body = request.json
        except ValueError:
            return _error(400, "invalid character 'n' looking for beginning of value")
        reply: Reply | Stream = answer(body)
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

    def _chat(self, body: dict[str, Any]) -> Reply | Stream:
        name = body.get("model", "")
        unreadable = _unreadable(body)
        if unreadable is not None:
            return _error(400, unreadable)
        model = self.models.get(_tagged(name))
        if model is None:
            return _error(404, f"model '{name}' not found") if name else _error(400, "model is required")
        if model.get("remote_host") and not self.signed_in:
            return Reply(401, {"error": "unauthorized", "signin_url": SIGNIN_URL})
        able = self._capabilities(model)
        # A model that can think does so unless it is told not to.
        think = "thinking" in able if body.get("think") is None else body["think"]
        lacking = _lacking(name, able, body, think)
        if lacking is not None:
            return _error(400, lacking)
        self._loaded.add(_tagged(name))
        facts = {"model": name, "created_at": _CREATED}
        if not body.get("messages"):
            empty = {"message": {"role": "assistant", "content": ""}, "done_reason": "load", "done": True}
            return Reply(200, facts | empty)
        asked = openai_form(body, think)
        said = self.brain(asked)
        for _, arguments in said.tool_calls:
            if not isinstance(_parsed(arguments), dict):
                return _error(500, f"error parsing tool call: raw='{arguments}', err=invalid character")
        room = min(model.get("context_length", 512), (body.get("options") or {}).get("num_ctx", 1 << 30))
        end = {"done_reason": "length" if said.ended == "length" else "stop", "done": True, **_spent(asked, said, room)}
        parts = self._parts(said if think else Said(said.text, tool_calls=said.tool_calls))
        if body.get("stream") is not False:
            lines = [{**facts, "message": part, "done": False} for part in parts]
            lines.append({**facts, "message": {"role": "assistant", "content": ""}, **end})
            sent = [json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines]
            return Stream(200, {"content-type": "application/x-ndjson"}, sent)
        headers = {"content-type": "application/json; charset=utf-8"}
        return Reply(200, {**facts, "message": _joined(list(parts)), **end}, headers)

    def _parts(self, said: Said) -> Iterator[dict[str, Any]]:
        """Give the message in the parts it is streamed in: thoughts and text in words, each tool call whole."""
        for word in pieces(said.reasoning):
            yield {"role": "assistant", "content": "", "thinking": word}
        for word in pieces(said.text):
            yield {"role": "assistant", "content": word}
        for place, (name, arguments) in enumerate(said.tool_calls):
            function = {"index": place, "name": name, "arguments": _parsed(arguments)}
            identity = {"id": f"call_{next(_numbers):08x}"} if self.tool_ids else {}
            yield {"role": "assistant", "content": "", "tool_calls": [{**identity, "function": function}]}

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
                "parameters": f"num_ctx                        {model.get('num_ctx', model.get('context_length', 512))}",
                "template": "{{ .Prompt }}",
                "details": self._details(model),
                "model_info": {
                    "general.architecture": family,
                    f"{family}.context_length": model.get("context_length", 512),
                    f"{family}.embedding_length": model.get("embedding_length", 384),
                    **({f"{family}.pooling_type": model["pooling_type"]} if "pooling_type" in model else {}),
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
            "quantization_level": model.get("quantization", "F16"),
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


def openai_form(body: Mapping[str, Any], think: bool | str = False) -> dict[str, Any]:
    """Return a request to /api/chat in OpenAI's form, for the brain."""
    options = body.get("options") or {}
    made: dict[str, Any] = {
        "model": body["model"],
        "messages": [_openai_message(message) for message in body["messages"]],
        "tools": body.get("tools") or None,
        "stop": options.get("stop"),
        "temperature": options.get("temperature"),
        "max_tokens": options["num_predict"] if options.get("num_predict", -1) > 0 else None,
        "reasoning_effort": think if isinstance(think, str) else "medium" if think else None,
    }
    if wanted := body.get("format"):
        schema = {"type": "json_schema", "json_schema": {"name": "format", "schema": wanted}}
        made["response_format"] = {"type": "json_object"} if wanted == "json" else schema
    return {key: value for key, value in made.items() if value is not None}


def _openai_message(message: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message["role"], "content": message.get("content", "")}
    if images := message.get("images"):
        parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}} for image in images]
        made["content"] = [{"type": "text", "text": made["content"]}, *parts]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call.get("id") or f"call_{call['function']['name']}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": arguments_json(call["function"].get("arguments") or {}),
                },
            }
            for call in calls
        ]
    if message["role"] == "tool":
        made["tool_call_id"] = message.get("tool_call_id") or f"call_{message.get('tool_name', '')}"
    return made


def _unreadable(body: Mapping[str, Any]) -> str | None:
    """Return what Go's decoder says of a body that is not a ChatRequest."""
    for message in body.get("messages") or ():
        if not isinstance(content := message.get("content") or "", str):
            return f"json: cannot unmarshal {_go_type(content)} into Go struct field ChatRequest.messages.content of type string"
        for call in message.get("tool_calls") or ():
            if not isinstance(arguments := call["function"].get("arguments") or {}, dict):
                field = "ChatRequest.messages.tool_calls.function.arguments of type api.ToolCallFunctionArguments"
                return f"json: cannot unmarshal {_go_type(arguments)} into Go struct field {field}"
        for image in message.get("images") or ():
            if found := re.search(r"[^A-Za-z0-9+/=]", image):
                return f"illegal base64 data at input byte {found.start()}"
    wanted = body.get("format")
    if wanted and wanted != "json" and not isinstance(wanted, dict):
        return f'invalid format: "{wanted}"; expected "json" or a valid JSON Schema object'
    return None


def _lacking(name: str, able: Sequence[str], body: Mapping[str, Any], think: bool | str) -> str | None:
    """Return what is said of a model that cannot do what is asked."""
    if "completion" not in able:
        return f'"{name}" does not support chat'
    if think and "thinking" not in able:
        return f'"{name}" does not support thinking'
    if body.get("tools") and "tools" not in able:
        tagged = _tagged(name)
        prefix = ("registry.ollama.ai/library/", "registry.ollama.ai/", "")[min(tagged.count("/"), 2)]
        return f"{prefix}{tagged} does not support tools"
    return None


def _parsed(arguments: dict[str, Any] | str) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return None


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the message whose parts these are."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(part["content"] for part in parts)}
    if thinking := "".join(part.get("thinking", "") for part in parts):
        message["thinking"] = thinking
    if calls := [call for part in parts for call in part.get("tool_calls", ())]:
        message["tool_calls"] = calls
    return message


def _spent(asked: Mapping[str, Any], said: Said, room: int) -> dict[str, int]:
    """Return the counts and times at the end of an answer; what of the prompt has no room is left out in silence."""
    prompt, answer = said.tokens(asked)
    return {
        "total_duration": 150_000_000,
        "load_duration": 20_000_000,
        "prompt_eval_count": min(prompt, room),
        "prompt_eval_duration": 30_000_000,
        "eval_count": answer,
        "eval_duration": 100_000_000,
    }


def _go_type(value: Any) -> str:
    return {str: "string", bool: "bool", list: "array", dict: "object"}.get(type(value), "number")
