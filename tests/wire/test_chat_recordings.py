"""Every recorded chat, read by our own decoders: they give what the recording says, by the plainest reading of it.

Each answer is held against the recording's own lines and against a literal below, so that a mistake in both readings shows.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from hf_gateway import errors
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatRequest
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.usage import Usage
from hf_gateway.wire import hf_router, ollama, ollama_chat, openai_chat
from hf_gateway.wire.classify import classify
from hf_gateway.wire.hf_router import Capabilities, Offer
from tests.conftest import RECORDINGS


@dataclass(frozen=True)
class Exchange:
    """One request and its answer. asked: the JSON that was sent, None where the recording has none."""

    name: str
    method: str
    url: str
    asked: Any
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """What it is a recording of; a sentence for what is no chat."""
        path = urlsplit(self.url).path
        if path.endswith(("/chat/completions", "/api/chat")) and self.status == 200:
            server = "ollama" if path.endswith("/api/chat") else "openai"
            return f"{server} {'stream' if self.streams else 'whole'}"
        return next((kind for pattern, kind in OTHERS.items() if re.search(pattern, path)), "unknown")

    @property
    def streams(self) -> bool:
        return self.headers["content-type"].split(";")[0] in ("text/event-stream", "application/x-ndjson")

    @property
    def response(self) -> HttpResponse:
        return HttpResponse(self.status, self.headers, self.body)


OTHERS = {
    r"/v1/models$": "the router's catalogue",
    r"/api/tags$": "what Ollama has pulled",
    r"/api/ps$": "no chat: what Ollama has loaded",
    r"/api/generate$": "no chat: Ollama completes a text",
    r"/api/embeddings$": "no chat: Ollama embeds",
    r"/api/(models|tasks|repos|spaces)\b": "no chat: the Hub",
    r"/chat/completions$": "an error of chat",
    r"/pipeline/": "no chat: a pipeline of hf-inference",
    r"/models/(google/flan-t5-xxl|gpt2|microsoft/DialoGPT-small|HuggingFaceH4/zephyr-7b-alpha)$": "no chat: TGI completes a text",
    r"/models/": "no chat: another task of hf-inference",
    r"/images/generations$": "no chat: an image is painted",
    r"^/$": "no chat: a dedicated endpoint's TGI completes a text",
}


@functools.cache
def exchanges() -> tuple[Exchange, ...]:
    """Read every cassette; nothing where there are none, so that this file can be collected everywhere."""
    found: list[Exchange] = []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted([*RECORDINGS.rglob("*.yaml"), *RECORDINGS.rglob("*.yml")]):
        cassette = yaml.load(path.read_bytes(), Loader=loader)
        listed = cassette.get("interactions") or cassette.get("http_interactions") or ()
        for place, each in enumerate(listed):
            asked, answered = each["request"], each["response"]
            headers = {name.lower(): values[0] for name, values in answered["headers"].items()}
            name = f"{path.parent.name}/{path.stem}#{place}"
            sent, body = _text(asked.get("body")), _bytes(answered["body"])
            status = answered["status"]["code"]
            found.append(Exchange(name, asked["method"].upper(), asked["uri"], sent, status, headers, body))
    return tuple(found)


def _bytes(body: Any) -> bytes:
    """vcrpy keeps bodies as text or bytes, Ruby's VCR as a mapping with the encoding."""
    body = body["string"] if isinstance(body, dict) else body
    return body if isinstance(body, bytes) else (body or "").encode()


def _text(body: Any) -> Any:
    try:
        return json.loads(_bytes(body))
    except ValueError:
        return None


def of_kind(*kinds: str) -> Any:
    """Mark a test to be run with every exchange of these kinds, or once, to be skipped, where there are no recordings."""
    found = [each for each in exchanges() if each.kind.startswith(kinds)]
    return pytest.mark.parametrize("exchange", found or [None], ids=[each.name for each in found] or ["none"])


def read_stream(
    decoder: openai_chat.OpenAIStreamDecoder | ollama_chat.OllamaStreamDecoder, *pieces: bytes
) -> ChatAnswer:
    """Feed the pieces and the end, and gather what comes."""
    builder = AnswerBuilder()
    for piece in pieces:
        for event in decoder.feed(piece):
            builder.add(event)
    for event in decoder.end():
        builder.add(event)
    return builder.answer()


def gathered(event: Any) -> ChatAnswer:
    builder = AnswerBuilder()
    builder.add(event)
    return builder.answer()


# What the recordings say: characters of the text, how it begins and ends, why it ended, tokens in and out.
CHATLAS, HUB, OLLAMA = "test_provider_huggingface/test_huggingface_", "cassettes/", "test_chat/test_ollama_"
CLIENT = f"{HUB}TestInferenceClient.test_chat_completion_"
NO_STREAM, WITH_STREAM = f"{CLIENT}no_stream", f"{CLIENT}with_stream"
ASYNC, COMPATIBLE = f"{HUB}test_async_chat_completion_", f"{HUB}TestOpenAICompatibility.test_"
METRICS = "test_ollama_metrics/test_ollama_operation_duration_includes_"
FOOBARA, PASSED = "Foobara_Ai_OllamaApi_GenerateChatCompletion", "can_create_a_message_result#0"
FIREWORKS = "accounts/fireworks/models/llama-v3p3-70b-instruct"
COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10!"
ANSWERS: dict[str, tuple[int, str, str, str, int | None, int | None]] = {
    f"{CHATLAS}data_extraction#0": (57, '{"title": "Apples are tasty"', '"author": "Hadley Wickham"}', "stop", 209, 19),
    f"{CHATLAS}data_extraction#1": (57, '{"title": "Apples are tasty"', '"author": "Hadley Wickham"}', "stop", 272, 19),
    f"{CHATLAS}data_extraction#2": (39, '{"name": "Eleanor Thompson", "age": 28}', '"age": 28}', "stop", 294, 15),
    f"{CHATLAS}data_extraction#3": (38, "The person's name is Eleanor Thompson.", "", "stop", 200, 9),
    f"{CHATLAS}images#0": (77, "The image is a solid red rectangle with no", "or details present.", "stop", 33, 16),
    f"{CHATLAS}images#1": (409, "The image features a stylized logo", "associated with baseball.", "stop", 126, 88),
    f"{CHATLAS}respects_turns_interface#0": (18, "CHRISTOPHER ROBIN.", "", "stop", 62, 8),
    f"{CHATLAS}respects_turns_interface#1": (18, "CHRISTOPHER ROBIN.", "", "stop", 62, 8),
    f"{CHATLAS}respects_turns_interface#2": (19, "Your name is Steve.", "", "stop", 64, 6),
    f"{CHATLAS}simple_request#0": (1, "2", "", "stop", 51, 2),
    f"{CHATLAS}simple_streaming_request#0": (1, "2", "", "stop", 51, 2),
    f"{CHATLAS}tools#0": (17, "It is 'get_date'.", "", "stop", 515, 7),
    f"{CHATLAS}tools_async#0": (45, '{"name": "get_current_date", "arguments": {}}', "", "stop", 507, 14),
    f"{NO_STREAM}[cerebras,conversational]#1": (196, "**Deep Learning: An", "interpret data.", "stop", 46, 637),
    f"{NO_STREAM}[fireworks-ai,conversational]#1": (3180, "**Deep Learning O", "and training.", "stop", 46, 586),
    f"{NO_STREAM}[hf-inference,conversational]#1": (3141, "Deep learning is", "complex components.", "stop", 46, 579),
    f"{NO_STREAM}[hyperbolic,conversational]#1": (2492, "Deep learning is", "various industries.", "stop", 46, 477),
    f"{NO_STREAM}[nebius,conversational]#1": (2623, "Deep learning is", "or impractical.", "stop", 26, 462),
    f"{NO_STREAM}[novita,conversational]#1": (3071, "Deep learning is", "across many fields.", "stop", 46, 584),
    f"{NO_STREAM}[sambanova,conversational]#1": (2144, "Deep learning is", "to complex data.", "stop", 46, 409),
    f"{NO_STREAM}[together,conversational]#1": (3441, "Deep learning is", "and robotics.", "stop", 26, 597),
    f"{CLIENT}with_non_tgi#1": (27, "What is this deep learning?", "", "stop", 13, 7),
    f"{WITH_STREAM}[cerebras,conversational]#1": (100, "Deep learning is", "intelligence (AI) that", "length", 46, 20),
    f"{WITH_STREAM}[fireworks-ai,conversational]#1": (128, "**Deep Learning", "artificial neural", "length", 46, 20),
    f"{WITH_STREAM}[hf-inference,conversational]#1": (104, "Deep learning", "networks (ANNs)", "length", None, None),
    f"{WITH_STREAM}[hyperbolic,conversational]#1": (108, "Deep learning is", "(hence the term", "length", 46, 21),
    f"{WITH_STREAM}[nebius,conversational]#1": (111, "Deep learning is", "the human brain", "length", None, None),
    f"{WITH_STREAM}[novita,conversational]#1": (123, "Deep learning is", "networks with multiple", "length", 46, 20),
    f"{WITH_STREAM}[sambanova,conversational]#1": (121, "Deep learning is", "multiple layers to", "length", None, None),
    f"{WITH_STREAM}[together,conversational]#1": (112, "Deep learning is", "networks to model and", "length", 26, 20),
    f"{COMPATIBLE}base_url_and_api_key#0": (30, COUNTING, "", "stop", 25, 30),
    f"{COMPATIBLE}with_stream_true#1": (30, COUNTING, "", "stop", None, None),
    f"{COMPATIBLE}without_base_url#1": (30, COUNTING, "", "stop", 25, 30),
    f"{ASYNC}no_stream#1": (52, "Deep learning is a subfield", "learning that", "length", 46, 10),
    f"{ASYNC}not_tgi_no_stream#1": (45, "Deep learning isn't even an algorithm though.", "", "length", 13, 10),
    f"{ASYNC}with_stream#1": (52, "Deep Learning is a subfield", "learning that", "length", None, None),
    f"{OLLAMA}async_chat_legacy#0": (348, "A joke about OpenTelemetry!", "just a techie joke)", "stop", None, 79),
    f"{OLLAMA}async_streaming_chat_legacy#0": (238, "Here's one:\n\nWhy did", "want another one?)", "stop", 17, 63),
    f"{OLLAMA}chat_legacy#0": (256, "A joke about OpenTelemetry!\n\nWhy", "smile to your face!)", "stop", 17, 66),
    f"{OLLAMA}chat_tool_calls_legacy#0": (535, "This is a simple example", "(e.g., Celsius).", "stop", 44, 113),
    f"{OLLAMA}streaming_chat_legacy#0": (212, "Why did the OpenTelemetry agent", "your face!)", "stop", 17, 50),
    f"{METRICS}model_attribute#0": (398, "Okay, I understand.", "respond appropriately.", "stop", 19, 104),
    f"{FOOBARA}/{PASSED}": (1353, "A sweet question!\n\nThe pH of", "52(1), 15-20.", "stop", 17, 358),
    f"with_an_api_key/{PASSED}": (566, "Honey typically has a pH range of **3.2", "preserve food.", "stop", 15, 132),
}
# Who served it, the model by its own word, the request's id.
SERVED = {
    f"{CHATLAS}data_extraction#0": ("cerebras", "llama3.1-8b", "chatcmpl-57a03339-427c-4d75-9f77-eb4e7ba049e5"),
    f"{CHATLAS}images#1": ("ovhcloud", "Qwen2.5-VL-72B-Instruct", "4768a845b723cc5bbe5b022c7b8bf167"),
    f"{CHATLAS}tools#0": ("cerebras", "llama3.1-8b", "chatcmpl-07fc2456-dc1f-41c6-8eb0-7563b0106404"),
    f"{WITH_STREAM}[cerebras,conversational]#1": (None, "llama-3.3-70b", "91e482e57f974286-SJC"),
    f"{NO_STREAM}[fireworks-ai,conversational]#1": (None, FIREWORKS, "2fd15a30-af2d-4296-89ec-a89b08a65b47"),
    f"{ASYNC}with_stream#1": (None, "HuggingFaceH4/zephyr-7b-beta", "2g_S7nqJzNvGTpWcnXvgS"),
    f"{OLLAMA}chat_tool_calls_legacy#0": (None, "llama3.1", None),
    f"with_an_api_key/{PASSED}": (None, "qwen3-coder:30b", None),
}
LOADING = "errors/503_5f9d9460d4_TestInferenceClient.test_"
PAINTING = "errors/422_f9a6d50d83_TestInferenceClient.test_text_to_image"
ERRORS = {
    "errors/400_0cc995e332_TestTextGenerationClientVCR.test_generate_non_tgi_endpoint#0": errors.InvalidRequest,
    "errors/400_ae6f2afb98_InferenceApiTest.test_inference_missing_input#1": errors.InvalidRequest,
    "errors/401_d201d5c5a2_TestInferenceClient.test_chat_completion_unprocessable_entity#1": errors.AuthenticationFailed,
    f"{CLIENT}unprocessable_entity#1": errors.AuthenticationFailed,
    "errors/409_d74370d961_TestSpaceAPIProduction.test_manage_secrets#0": errors.ServerError,
    "errors/422_4d5739ce70_TestTextGenerationClientVCR.test_generate_validation_error#0": errors.ContextOverflow,
    f"{HUB}TestTextGenerationClientVCR.test_generate_validation_error#1": errors.ContextOverflow,
    "errors/422_be3a3874d7_InferenceClientVCRTest.test_unprocessable_entity_error#0": errors.InvalidRequest,
    f"{PAINTING}_default_hyperbolic_text-to-image_#0": errors.InvalidRequest,
    "errors/429_53959a191d_InferenceApiTest.test_inference_missing_input#1": errors.RateLimited,
    "errors/500_07b56f804e_InferenceClientVCRTest.test_chat_completion_with_non_tgi#0": errors.ServerError,
    "errors/500_07b56f804e_InferenceClientVCRTest.test_chat_completion_with_non_tgi#2": errors.InvalidRequest,
    "errors/503_4d508931ff_test_async_sentence_similarity#1": errors.ModelLoading,
    f"{LOADING}feature_extraction_with_transformers_hf-inference_feature-extraction_#0": errors.ModelLoading,
    f"{LOADING}text_classification_hf-inference_text-classification_#0": errors.ModelLoading,
    f"{LOADING}token_classification_hf-inference_token-classification_#0": errors.ModelLoading,
}


def test_enough_of_each_kind_was_found_and_nothing_is_left_over(recordings: Path) -> None:
    found = Counter(each.kind for each in exchanges())
    assert found["openai whole"] >= 16
    assert found["openai stream"] >= 20
    assert found["ollama whole"] >= 6
    assert found["ollama stream"] >= 2
    assert found["the router's catalogue"] >= 1
    assert found["what Ollama has pulled"] >= 2
    assert found["an error of chat"] >= 3
    assert sum(each.status >= 400 for each in exchanges()) >= 16
    assert [each.name for each in exchanges() if each.kind == "unknown"] == []
    # A folder that moved, or a cassette that came, is noticed: each chat and each error has its line above.
    assert {each.name for each in exchanges() if each.kind.endswith((" whole", " stream"))} == set(ANSWERS)
    assert {each.name for each in exchanges() if each.status >= 400} == set(ERRORS)
    assert set(SERVED) <= set(ANSWERS)


# What the recordings say, by the plainest reading


def lines(exchange: Exchange) -> list[dict[str, Any]]:
    """Return the JSON of every line."""
    said = [line.removeprefix("data:").strip() for line in exchange.body.decode().split("\n")]
    return [json.loads(line) for line in said if line not in ("", "[DONE]")]


def compare(exchange: Exchange, answer: ChatAnswer) -> None:
    """Hold an answer against the literals."""
    length, start, end, reason, tokens_in, tokens_out = ANSWERS[exchange.name]
    assert len(answer.text) == length
    assert answer.text.startswith(start)
    assert answer.text.endswith(end)
    assert answer.finish_reason == reason
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (tokens_in, tokens_out)
    if exchange.name in SERVED:
        assert (answer.provider, answer.model, answer.request_id) == SERVED[exchange.name]


def usage_said(usage: Mapping[str, Any] | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.get("prompt_tokens_details") or {}
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens"))


@of_kind("openai whole")
def test_a_whole_answer_is_read_as_recorded(recordings: Path, exchange: Exchange) -> None:
    answer = gathered(openai_chat.decode_chat(exchange.response, target="hf"))
    said = json.loads(exchange.body)
    [choice] = said["choices"]
    assert answer.text == choice["message"]["content"]
    assert (answer.reasoning, answer.tool_calls, answer.logprobs) == ("", (), ())
    assert answer.finish_reason == choice["finish_reason"]
    assert answer.usage == usage_said(said["usage"])
    assert answer.model == said["model"]
    assert answer.provider == exchange.headers.get("x-inference-provider")
    assert answer.request_id in (exchange.headers.get("x-request-id"), exchange.headers.get("inference-id"))
    compare(exchange, answer)


@of_kind("openai stream")
def test_a_stream_is_read_as_recorded(recordings: Path, exchange: Exchange) -> None:
    decoder = openai_chat.OpenAIStreamDecoder(exchange.headers, "hf")
    answer = read_stream(decoder, exchange.body)
    chunks = lines(exchange)
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert answer.text == "".join(choice["delta"].get("content") or "" for choice in choices)
    assert (answer.reasoning, answer.tool_calls, answer.logprobs) == ("", (), ())
    assert [answer.finish_reason] == [
        reason for choice in choices if (reason := choice.get("finish_reason")) is not None
    ]
    assert answer.usage == usage_said(
        next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage") is not None), None)
    )
    assert {answer.model} == {chunk["model"] for chunk in chunks}
    assert answer.provider == exchange.headers.get("x-inference-provider")
    assert answer.request_id == exchange.headers.get("x-request-id", exchange.headers.get("inference-id"))
    assert decoder.finished
    assert decoder.done == (b"[DONE]" in exchange.body)
    compare(exchange, answer)


@of_kind("ollama")
def test_an_answer_of_ollama_is_read_as_recorded(recordings: Path, exchange: Exchange) -> None:
    if exchange.streams:
        decoder = ollama_chat.OllamaStreamDecoder(exchange.headers, "ollama")
        answer = read_stream(decoder, exchange.body)
        assert decoder.finished
        assert decoder.done
    else:
        answer = gathered(ollama_chat.decode_chat(exchange.response, target="ollama"))
    said = lines(exchange)
    assert answer.text == "".join(line["message"]["content"] for line in said)
    assert (answer.reasoning, answer.tool_calls, answer.logprobs) == ("", (), ())
    assert [line["done"] for line in said] == [False] * (len(said) - 1) + [True]
    assert answer.finish_reason == said[-1]["done_reason"]
    assert answer.usage == Usage(said[-1].get("prompt_eval_count"), said[-1]["eval_count"])
    assert {answer.model} == {line["model"] for line in said}
    assert (answer.provider, answer.request_id) == (None, None)
    compare(exchange, answer)


def test_the_tokens_from_the_servers_cache_are_read(recordings: Path) -> None:
    counted = {
        each.name: gathered(openai_chat.decode_chat(each.response, target="hf")).usage.cached_tokens
        for each in exchanges()
        if each.kind == "openai whole"
    }
    assert counted.pop(f"{CHATLAS}data_extraction#0") == 0  # said to be none, which is not the same as not said
    assert counted[f"{NO_STREAM}[nebius,conversational]#1"] is None  # its details are null
    assert {name for name, tokens in counted.items() if tokens is not None} == {
        f"{CHATLAS}data_extraction#1",
        f"{CHATLAS}data_extraction#2",
    }


# Errors


@pytest.mark.parametrize("name", ERRORS)
def test_a_recorded_error_has_its_class(recordings: Path, name: str) -> None:
    [exchange] = [each for each in exchanges() if each.name == name]
    classified = classify(exchange.status, exchange.headers, exchange.body, target="hf")
    assert type(classified) is ERRORS[name]
    for decode in (openai_chat.decode_chat, ollama_chat.decode_chat):
        with pytest.raises(ERRORS[name]) as caught:
            decode(exchange.response, target="hf")
        assert (type(caught.value), caught.value.status) == (ERRORS[name], exchange.status)
        said = _text(exchange.body)
        said = said.get("error", said.get("detail")) if isinstance(said, dict) else exchange.body.decode()
        if isinstance(said, list) and isinstance(said[0], dict):  # what was sent, which pydantic repeats, is not shown
            said = json.dumps([{key: value for key, value in each.items() if key != "input"} for each in said])
            said = said.removesuffix("}]")
        said = said if isinstance(said, str) else json.dumps(said)
        assert " ".join(said.split())[:400] in caught.value.message
        if isinstance(caught.value, errors.ModelLoading):
            assert caught.value.retry_after == pytest.approx(json.loads(exchange.body)["estimated_time"])


def test_a_model_that_takes_less_than_was_asked_for_says_how_much(recordings: Path) -> None:
    [exchange] = [each for each in exchanges() if "422_4d5739ce70" in each.name]
    with pytest.raises(errors.ContextOverflow) as caught:
        openai_chat.decode_chat(exchange.response, target="endpoint")
    assert caught.value.limit == 1512
    assert caught.value.try_next


@of_kind("no chat", "the router's catalogue", "what Ollama has pulled")
def test_what_is_no_chat_is_never_taken_for_an_answer(recordings: Path, exchange: Exchange) -> None:
    if exchange.status >= 400:
        return
    for decode in (openai_chat.decode_chat, ollama_chat.decode_chat):
        with pytest.raises(errors.BadResponse) as caught:
            decode(exchange.response, target="endpoint")
        assert len(str(caught.value)) < 500
    for kind in (openai_chat.OpenAIStreamDecoder, ollama_chat.OllamaStreamDecoder):
        decoder = kind(exchange.headers, "endpoint")
        try:
            answer = read_stream(decoder, exchange.body)
        except errors.BadResponse:
            answer = ChatAnswer()
        assert not decoder.finished
        assert answer.text == ""


# What we would have sent


def as_request(asked: Mapping[str, Any]) -> ChatRequest:
    """Put a recorded body into our own words."""
    own = {name: value for name, value in asked.items() if value not in (None, "", {}, [])}
    messages, stream = own.pop("messages"), own.pop("stream", False)
    for name in ("model", "stream_options", "options"):
        own.pop(name, None)
    return replace(ChatRequest.of(messages, **own, **(asked.get("options") or {})), stream=stream)


@of_kind("openai", "an error of chat")
def test_openais_form_is_sent_as_others_sent_it(recordings: Path, exchange: Exchange) -> None:
    base, _, route = exchange.url.rpartition("/chat/")
    assert openai_chat.chat_url(base) == exchange.url
    assert route == "completions"
    asked = exchange.asked
    if asked is None or isinstance(asked["messages"], str):
        assert exchange.name.startswith((f"{HUB}test_async_", f"{CLIENT}un", "err"))
        return
    with_usage = "stream_options" in asked
    made = openai_chat.encode_chat(exchange.url, asked["model"], as_request(asked), stream_usage=with_usage)
    # huggingface_hub and openai write out what is the default; we leave it out.
    assert json.loads(made.body or b"") == {
        name: value for name, value in asked.items() if value is not None and (name, value) != ("stream", False)
    }
    assert (made.method, made.url) == (exchange.method, exchange.url)


@of_kind("ollama")
def test_ollamas_form_is_sent_as_others_sent_it(recordings: Path, exchange: Exchange) -> None:
    asked = exchange.asked
    messages = [dict(message) for message in asked["messages"]]
    for message in messages:
        # Ollama's form of a call back into OpenAI's, which is the one that callers write.
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [
                {
                    **call,
                    "id": "1",
                    "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])},
                }
                for call in calls
            ]
        if message["role"] == "tool":
            message["tool_call_id"] = "1"
    request = as_request({**asked, "messages": messages})
    made = ollama_chat.encode_chat(exchange.url.removesuffix("/api/chat"), asked["model"], request, target="ollama")
    assert (made.method, made.url) == (exchange.method, exchange.url)
    sent = json.loads(made.body or b"")
    assert sent.pop("truncate") is False
    for message in sent["messages"]:
        for call in message.get("tool_calls", ()):
            assert call.pop("id") == "1"
        if message["role"] == "tool":
            assert (message.pop("tool_call_id"), message.pop("tool_name")) == ("1", "get_current_weather")
    assert sent == {name: value for name, value in asked.items() if value not in (None, "", {}, [])}


# The catalogue


def _prices(pricing: dict[str, float] | None) -> list[float | None]:
    """What is meant by 0.060000000000000005 is 0.06."""
    return [float(f"{pricing[name]:.15g}") if pricing else None for name in ("input", "output")]


@of_kind("the router's catalogue")
def test_the_catalogue_is_read_as_recorded(recordings: Path, exchange: Exchange) -> None:
    made = hf_router.encode_models("https://router.huggingface.co")
    assert (made.method, made.url) == (exchange.method, exchange.url)
    entries = hf_router.decode_models(exchange.response, target="hf")
    said = json.loads(exchange.body)["data"]
    assert [entry.id for entry in entries] == [model["id"] for model in said]
    for entry, model in zip(entries, said, strict=True):
        assert list(entry.inputs) == model["architecture"]["input_modalities"]
        assert list(entry.providers) == [
            Offer(
                row["provider"],
                row["status"] == "live",
                row.get("context_length"),
                row.get("supports_tools"),
                row.get("supports_structured_output"),
                *_prices(row.get("pricing")),
            )
            for row in model["providers"]
        ]
        for row in model["providers"]:
            assert entry.capabilities(row["provider"]) == Capabilities(
                row.get("context_length"),
                row.get("supports_tools"),
                row.get("supports_structured_output"),
                "image" in model["architecture"]["input_modalities"],
            )


@of_kind("the router's catalogue")
def test_the_catalogue_has_what_is_known_of_it(recordings: Path, exchange: Exchange) -> None:
    entries = {entry.id: entry for entry in hf_router.decode_models(exchange.response, target="hf")}
    assert len(entries) == 127
    assert sum(len(entry.providers) for entry in entries.values()) == 276
    assert sum(not row.live for entry in entries.values() for row in entry.providers) == 4
    assert entries["MiniMaxAI/MiniMax-M2.1"].capabilities("novita") == Capabilities(204_800, True, False, False)
    llama = entries["meta-llama/Llama-3.1-8B-Instruct"]
    assert [row.provider for row in llama.providers if not row.live] == ["hyperbolic"]
    assert llama.capabilities("cerebras") == Capabilities(None, False, False, False)
    assert llama.capabilities("sambanova") == Capabilities(16_384, True, True, False)
    # Where the router chooses: the shortest context of those that are live; featherless-ai says nothing of tools.
    assert llama.capabilities(None) == llama.capabilities("fastest") == Capabilities(16_384, None, None, False)
    assert entries["openai/gpt-oss-120b"].capabilities(None).context == 131_072
    assert sum(entry.capabilities(None).images is True for entry in entries.values()) == 21


@of_kind("what Ollama has pulled")
def test_the_list_of_pulled_models_is_read_as_recorded(recordings: Path, exchange: Exchange) -> None:
    pulled = ollama.decode_tags(exchange.response, target="ollama")
    assert [(model.name, model.remote_host) for model in pulled] == [
        (model["name"], model.get("remote_host")) for model in json.loads(exchange.body)["models"]
    ]
    assert (len(pulled), pulled[0].name) == (24, "llama3:8b")
