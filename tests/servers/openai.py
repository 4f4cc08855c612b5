"""OpenAI's embeddings and chat APIs as vLLM, infinity and their like serve them."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from tests.servers import Embed, float32_base64, normalized, tokens, unit_vectors
from tests.servers.chat import Brain, Said, arguments_json, default_brain, pieces, prompt_words
from tests.servers.images import images_answer
from tests.servers.labels import label_list, logits, softmax
from tests.servers.loopback import Loopback, Recorded, Reply, Stream
from tests.servers.rerank import Form as RerankForm
from tests.servers.rerank import Score, pair_tokens, shared_words
from tests.servers.rerank import answer as rerank_answer

CREATED = 1763600000
_numbers = count(1)


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


@dataclass(frozen=True)
class ChatForm:
    """How a server writes what was said; the defaults are OpenAI's own way, and each field is a way of some other server.

    reasoning_field: where the thoughts stand; usage_in_stream: in a chunk of its own where the request asks for it, on
    the chunk with the finish_reason without being asked ("finish"), or never; whole_tool_calls: in one piece instead of
    many; tool_index, tool_ids: whether the calls are numbered, and have ids; done: whether a stream ends with `[DONE]`;
    served_model: what the answer calls the model, instead of what the request does; data_prefix, newline: how an event
    is written, "data:" and "\\r\\n" being allowed too; comments: lines between the events that carry nothing; headers:
    on top of the usual ones.
    """

    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    usage_in_stream: bool | Literal["finish"] = True
    whole_tool_calls: bool = False
    tool_index: bool = True
    tool_ids: bool = True
    done: bool = True
    served_model: str | None = None
    system_fingerprint: str | None = "fp_loopback"
    data_prefix: str = "data: "
    newline: str = "\n"
    comments: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def answer(self, body: Mapping[str, Any], said: Said, headers: Mapping[str, str] | None = None) -> Reply | Stream:
        """Return the answer to a request, streamed if it asks for that; "{id}" in a header becomes the answer's id."""
        number = next(_numbers)
        facts: dict[str, Any] = {
            "id": f"chatcmpl-{number:032x}",
            "object": "chat.completion",
            "created": CREATED,
            "model": self.served_model or body.get("model") or "",
            "system_fingerprint": self.system_fingerprint,
        }
        given = {"x-request-id": f"req_{number:032x}", **(headers or {}), **self.headers}
        sent = {name: value.replace("{id}", facts["id"]) for name, value in given.items()}
        if not body.get("stream"):
            return Reply(200, {**facts, **self._whole(body, said, number)}, sent)
        events = self._stream(facts | {"object": "chat.completion.chunk"}, body, said, number)
        return Stream(200, {"content-type": "text/event-stream; charset=utf-8", **sent}, list(events))

    def _whole(self, body: Mapping[str, Any], said: Said, number: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said.text}
        if said.reasoning:
            message[self.reasoning_field] = said.reasoning
        if said.tool_calls:
            message["content"] = said.text or None
            message["tool_calls"] = [
                self._call(number, place, name, arguments) for place, (name, arguments) in enumerate(said.tool_calls)
            ]
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(body, said.text)}
        return {"choices": [{**choice, "finish_reason": said.ended}], "usage": usage_of(body, said)}

    def _stream(self, facts: dict[str, Any], body: Mapping[str, Any], said: Said, number: int) -> Iterator[bytes]:
        asked = bool((body.get("stream_options") or {}).get("include_usage")) and self.usage_in_stream is True
        empty = {"usage": None} if asked else {}
        if self.comments:
            yield self._line(": keep-alive")
        for delta in self._deltas(said, number):
            choice = {"index": 0, "delta": delta, "logprobs": self._logprobs(body, delta.get("content") or "")}
            yield self._event({**facts, "choices": [{**choice, "finish_reason": None}], **empty})
            if self.comments:
                yield self._line(": keep-alive")
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": said.ended}
        used = {"usage": usage_of(body, said)}
        yield self._event({**facts, "choices": [choice], **(used if self.usage_in_stream == "finish" else empty)})
        if asked:
            yield self._event({**facts, "choices": [], **used})
        if self.done:
            yield self._line(f"{self.data_prefix}[DONE]")

    def _deltas(self, said: Said, number: int) -> Iterator[dict[str, Any]]:
        """Give what each chunk adds: the role, the thoughts and the text in words, the calls in pieces."""
        yield {"role": "assistant", "content": ""}
        for word in pieces(said.reasoning):
            yield {self.reasoning_field: word}
        for word in pieces(said.text):
            yield {"content": word}
        for place, (name, arguments) in enumerate(said.tool_calls):
            call = self._call(number, place, name, arguments)
            slot = {"index": place} if self.tool_index else {}
            if self.whole_tool_calls:
                yield {"tool_calls": [{**slot, **call}]}
                continue
            yield {"tool_calls": [{**slot, **call, "function": {"name": name, "arguments": ""}}]}
            for part in re.findall(r"\w+|\W+", arguments_json(arguments)):
                yield {"tool_calls": [{**slot, "function": {"arguments": part}}]}

    def _call(self, number: int, place: int, name: str, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        identity = {"id": f"call_{number:020x}{place:04d}"} if self.tool_ids else {}
        return {**identity, "type": "function", "function": {"name": name, "arguments": arguments_json(arguments)}}

    def _logprobs(self, body: Mapping[str, Any], text: str) -> dict[str, Any] | None:
        if not body.get("logprobs"):
            return None
        best = {"logprob": -0.25}
        others = range(body.get("top_logprobs") or 0)
        return {
            "content": [
                {"token": word, "bytes": list(word.encode()), **best, "top_logprobs": [_guess(word, n) for n in others]}
                for word in pieces(text)
            ],
            "refusal": None,
        }

    def _event(self, payload: Mapping[str, Any]) -> bytes:
        return self._line(self.data_prefix + json.dumps(payload, ensure_ascii=False, separators=(",", ":")))

    def _line(self, line: str) -> bytes:
        return f"{line}{self.newline}{self.newline}".encode()


def _guess(word: str, place: int) -> dict[str, Any]:
    token = word + "?" * place
    return {"token": token, "logprob": -0.25 - place, "bytes": list(token.encode())}


def usage_of(body: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """Return the usage of an answer in OpenAI's form."""
    asked, answered = said.tokens(body)
    usage: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    if said.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": said.cached_tokens}
    if said.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": said.reasoning_tokens}
    return usage


def chat_refusal(body: Any, *, max_context: int | None = None) -> Reply | None:
    """Return the 400 that OpenAI, or vLLM for a conversation over `max_context` words, gives for a wrong request."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return _bad("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    temperature = body.get("temperature") or 0
    if temperature > 2:
        message = f"Expected a value <= 2, but got {temperature} instead."
        return _bad(
            f"Invalid 'temperature': decimal above maximum value. {message}", "temperature", "decimal_above_max_value"
        )
    wrong = _wrong_messages(body["messages"]) or _wrong_calls(body["messages"]) or _wrong_tools(body)
    if wrong is not None:
        return wrong
    words, wanted = prompt_words(body), body.get("max_completion_tokens") or body.get("max_tokens") or 0
    if max_context is not None and words + wanted > max_context:
        message = (
            f"This model's maximum context length is {max_context} tokens. However, you requested {words + wanted} "
            f"tokens ({words} in the messages, {wanted} in the completion). Please reduce the length of the messages or "
            "completion."
        )
        return error(400, message, "BadRequestError", code=400)
    return None


_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_PARTS = ("text", "image_url", "input_audio", "refusal", "audio", "file")


def _wrong_messages(messages: Sequence[Any]) -> Reply | None:
    """Return the refusal of a message that is wrong by itself."""
    if not messages:
        return _empty("messages")
    for index, message in enumerate(messages):
        place, role, content = f"messages[{index}]", message.get("role"), message.get("content")
        if role not in _ROLES:
            known = ", ".join(repr(known) for known in _ROLES)
            return _bad(f"Invalid value: {role!r}. Supported values are: {known}.", f"{place}.role", "invalid_value")
        if content is None and not (role == "assistant" and message.get("tool_calls")):
            return _bad("Invalid value for 'content': expected a string, got null.", f"{place}.content")
        for number, part in enumerate(content if isinstance(content, list) else ()):
            if part.get("type") not in _PARTS:
                known = ", ".join(repr(known) for known in _PARTS)
                said = f"Invalid value: {part.get('type')!r}. Supported values are: {known}."
                return _bad(said, f"{place}.content[{number}].type", "invalid_value")
        for number, call in enumerate(message.get("tool_calls") or ()):
            if not isinstance(call["function"].get("arguments"), str):
                where = f"{place}.tool_calls[{number}].function.arguments"
                return _bad(
                    f"Invalid type for '{where}': expected a string, but got an object instead.", where, "invalid_type"
                )
    return None


def _wrong_calls(messages: Sequence[Mapping[str, Any]]) -> Reply | None:
    """Return the refusal of a tool's message without its call, and of a call without its answer."""
    open_calls: list[str] = []
    calling = False
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            answered = message.get("tool_call_id")
            if not calling:
                said = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                return _bad(f"Invalid parameter: {said}", f"messages.[{index}].role")
            if answered not in open_calls:
                said = f"'tool_call_id' of '{answered}' not found in 'tool_calls' of previous message."
                return _bad(f"Invalid parameter: {said}", f"messages.[{index}].tool_call_id")
            open_calls.remove(answered)
            continue
        if open_calls:
            return _unanswered(open_calls, index)
        open_calls = [call.get("id") for call in message.get("tool_calls") or ()]
        calling = bool(open_calls)
    return _unanswered(open_calls, len(messages)) if open_calls else None


def _unanswered(calls: Sequence[str], index: int) -> Reply:
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(map(str, calls))}"
    )
    return _bad(message, f"messages.[{index}].role")


def _wrong_tools(body: Mapping[str, Any]) -> Reply | None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        return _empty("tools")
    if choice is not None and tools is None:
        return _bad(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.", "tool_choice"
        )
    if isinstance(choice, Mapping):
        name = choice["function"]["name"]
        if name not in [tool["function"]["name"] for tool in tools or ()]:
            return _bad(
                f"Invalid value for 'tool_choice': no function named {name!r} was specified in the 'tools' parameter.",
                "tool_choice",
            )
    elif choice not in (None, "none", "auto", "required"):
        return _bad(
            f"Invalid value: {choice!r}. Supported values are: 'none', 'auto', and 'required'.",
            "tool_choice",
            "invalid_value",
        )
    return None


def _empty(param: str) -> Reply:
    expected = "Expected an array with minimum length 1, but got an empty array with length 0 instead."
    return _bad(f"Invalid '{param}': empty array. {expected}", param, "empty_array")


def _bad(message: str, param: str, code: str | None = None) -> Reply:
    return error(400, message, "invalid_request_error", code=code, param=param)


class FakeOpenAI(Loopback):
    """An OpenAI-compatible server with `models`, under `prefix`.

    `models=None` takes any name, as infinity does. `ignore_encoding_format` answers floats whatever was asked for; what is not
    among `encodings` is refused with `encoding_status`.
    `shuffled` returns the rows backwards, each with its right `index`. More than `max_inputs` texts get
    `too_many_status`: 422 in FastAPI's form or 400 in OpenAI's. A text over `max_input_length` tokens (words + 2) gets
    vLLM's 400; without that limit nothing is too long. It chats with `brain`, in the way the fields of `ChatForm` given
    by name say; a conversation with more than `max_context` words gets vLLM's 400. It draws images of one pixel; a
    `response_format` that is not among `image_formats` gets OpenAI's 400. It labels texts as infinity does,
    or, with `best_label`, as vLLM does. It reranks with `score`, in the form of the server `reranks_like`; a pair over
    `max_input_length` tokens gets vLLM's 400, unless `truncates` and the request asks for that. A field that is not among
    `rerank_fields` gets FastAPI's 422, unless that is None.
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
        encodings: Collection[str] = ("float", "base64"),
        encoding_status: int = 422,
        shuffled: bool = False,
        usage: bool = True,
        brain: Brain = default_brain,
        max_context: int | None = None,
        image_formats: Collection[str] = ("b64_json",),
        best_label: bool = False,
        score: Score = shared_words,
        reranks_like: RerankForm = "vllm",
        rerank_fields: Collection[str] | None = None,
        truncates: bool = True,
        **form: Any,
    ) -> None:
        """Start it."""
        self.image_formats = image_formats
        self.score = score
        self.reranks_like: RerankForm = reranks_like
        self.rerank_fields = rerank_fields
        self.truncates = truncates
        self.embed = embed
        self.models = models
        self.prefix = prefix.rstrip("/")
        self.api_key = api_key
        self.max_inputs = max_inputs
        self.too_many_status = too_many_status
        self.max_input_length = max_input_length
        self.ignore_encoding_format = ignore_encoding_format
        self.encodings = encodings
        self.encoding_status = encoding_status
        self.shuffled = shuffled
        self.usage = usage
        self.brain = brain
        self.max_context = max_context
        self.best_label = best_label
        self.form = ChatForm(**form)
        super().__init__()

    def handle(self, request: Recorded) -> Reply | Stream:
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
        if request.path == f"{self.prefix}/classify":
            return self._classify(request) if request.method == "POST" else _detail(405, "Method Not Allowed")
        if request.path == f"{self.prefix}/chat/completions":
            return self._chat(request) if request.method == "POST" else _detail(405, "Method Not Allowed")
        if request.path == f"{self.prefix}/rerank":
            return self._rerank(request) if request.method == "POST" else _detail(405, "Method Not Allowed")
        if request.path == f"{self.prefix}/images/generations":
            return self._images(request)
        return _detail(404, "Not Found")

    def _chat(self, request: Recorded) -> Reply | Stream:
        try:
            body = request.json
        except ValueError:
            return unprocessable("json_invalid", "0", "JSON decode error", {})
        refusal = chat_refusal(body, max_context=self.max_context)
        if refusal is not None:
            return refusal
        if self.models is not None and body.get("model") not in self.models:
            return _no_model(body.get("model"))
        return self.form.answer(body, self.brain(body))

    def _rerank(self, request: Recorded) -> Reply:
        body = request.json
        for name in body if self.rerank_fields is not None else ():
            if name not in (self.rerank_fields or ()):
                return unprocessable("extra_forbidden", name, "Extra inputs are not permitted", body[name])
        documents = body["documents"]
        cuts = self.truncates and body.get("truncate_prompt_tokens") == -1
        if self.models is not None and body.get("model") not in self.models:
            return _no_model(body.get("model"))
        if not documents:
            message = "List should have at least 1 item after validation, not 0"
            return unprocessable("too_short", "documents", message, documents)
        if self.max_inputs is not None and len(documents) > self.max_inputs:
            message = f"List should have at most {self.max_inputs} items after validation, not {len(documents)}"
            return unprocessable("too_long", "documents", message, documents)
        longest = max(pair_tokens(body["query"], document) for document in documents)
        if self.max_input_length is not None and longest > self.max_input_length and not cuts:
            message = (
                f"This model's maximum context length is {self.max_input_length} tokens. However, you requested {longest} "
                "tokens in the input for score generation. Please reduce the length of the input."
            )
            return error(400, message, "BadRequestError", code=400)
        return Reply(200, rerank_answer(self.reranks_like, body, self.score))

    def _images(self, request: Recorded) -> Reply:
        body = request.json
        if "prompt" not in body:
            return unprocessable("missing", "prompt", "Field required", body)
        if self.models is not None and body.get("model") not in self.models:
            return _no_model(body.get("model"))
        if body.get("response_format") not in (None, *self.image_formats):
            return _bad("Unknown parameter: 'response_format'.", "response_format", "unknown_parameter")
        return images_answer(body)

    def _classify(self, request: Recorded) -> Reply:
        """Label texts in infinity's form, or in vLLM's with `best_label`."""
        body = request.json
        if "input" not in body:
            return unprocessable("missing", "input", "Field required", body)
        texts = body["input"]
        refusal = self._refusal(body.get("model"), texts)
        if refusal is not None:
            return refusal
        count = sum(len(tokens(text)) for text in texts)
        facts = {"id": "classify-1", "model": body.get("model") or "", "created": CREATED}
        usage = {"usage": {"prompt_tokens": count, "total_tokens": count}}
        if not self.best_label:
            found = [label_list(text, raw=body.get("raw_scores", False)) for text in texts]
            return Reply(200, {**facts, **usage, "object": "classify", "data": found})
        data = [
            {"index": i, "label": label_list(text)[0]["label"], "probs": softmax(logits(text)), "num_classes": 3}
            for i, text in enumerate(texts)
        ]
        if self.shuffled:
            data.reverse()
        return Reply(200, {**facts, **usage, "object": "list", "data": data})

    def _embeddings(self, request: Recorded) -> Reply:
        try:
            body = request.json
        except ValueError:
            return unprocessable("json_invalid", "0", "JSON decode error", {})
        if "input" not in body:
            return unprocessable("missing", "input", "Field required", body)
        form = body.get("encoding_format", "float")
        if form not in self.encodings:
            expected = f"Input should be {' or '.join(map(repr, self.encodings))}"
            if self.encoding_status == 422:
                return unprocessable("enum", "encoding_format", expected, form)
            return error(self.encoding_status, f"Invalid value for 'encoding_format': {expected}", "BadRequestError")
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
            return _no_model(model)
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
        limit = self.max_context if self.max_input_length is None else self.max_input_length
        return {"id": name, "object": "model", "created": CREATED, "owned_by": "vllm", "max_model_len": limit}


def _no_model(model: str | None) -> Reply:
    return error(404, f"The model `{model}` does not exist.", "NotFoundError", code=404, param="model")


def _detail(status: int, message: str) -> Reply:
    return Reply(status, {"detail": message})
