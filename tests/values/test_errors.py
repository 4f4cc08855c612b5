"""The one table that turns a server's answer into a class, against answers that real servers gave."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway import errors
from hf_gateway.wire.classify import classify
from hf_gateway.wire.retry_after import retry_after_seconds

NAMES = {
    "400_0cc995e332": errors.InvalidRequest,
    "400_ae6f2afb98": errors.InvalidRequest,
    "401_d201d5c5a2": errors.AuthenticationFailed,
    "422_4d5739ce70": errors.ContextOverflow,
    "422_be3a3874d7": errors.InvalidRequest,
    "422_f9a6d50d83": errors.InvalidRequest,
    "429_53959a191d": errors.RateLimited,
    "500_07b56f804e": errors.ServerError,
    "503_4d508931ff": errors.ModelLoading,
    "503_5f9d9460d4": errors.ModelLoading,
}


@pytest.mark.parametrize("name", NAMES)
def test_recorded_errors_of_the_platform_are_sorted_rightly(recordings: Path, name: str) -> None:
    seen = 0
    for path in (recordings / "huggingface_hub" / "errors").glob(f"{name}*.yaml"):
        for interaction in yaml.safe_load(path.read_text())["interactions"]:
            response = interaction["response"]
            if response["status"]["code"] != int(name[:3]):
                continue
            body = response["body"]["string"]
            headers = {key.lower(): value[0] for key, value in response["headers"].items()}
            error = classify(response["status"]["code"], headers, body if isinstance(body, bytes) else body.encode())
            assert type(error) is NAMES[name], str(error)
            assert len(str(error)) < 600
            seen += 1
    assert seen


def test_a_recorded_loading_answer_tells_how_long(recordings: Path) -> None:
    path = next((recordings / "huggingface_hub" / "errors").glob("503_5f9d9460d4*feature_extraction*.yaml"))
    first = yaml.safe_load(path.read_text())["interactions"][0]["response"]
    error = classify(503, {}, first["body"]["string"].encode())
    assert error.retry_after == pytest.approx(22.307, abs=0.001)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # text-embeddings-inference, router/src/http/server.rs
        (422, '{"error":"batch size 64 > maximum allowed batch size 32","error_type":"Validation"}', errors.BatchTooLarge),
        (422, '{"error":"Input validation error: `inputs` must have less than 256 tokens. Given: 812","error_type":"Validation"}', errors.ContextOverflow),
        (422, '{"error":"Input validation error: `inputs` cannot be empty","error_type":"Validation"}', errors.InvalidRequest),
        (424, '{"error":"Backend error: Model is not an embedding model","error_type":"Backend"}', errors.Unsupported),
        (424, '{"error":"Inference failed","error_type":"Backend"}', errors.ServerError),
        (429, '{"error":"Model is overloaded","error_type":"Overloaded"}', errors.RateLimited),
        (413, "Failed to buffer the request body: length limit exceeded", errors.BatchTooLarge),
        (401, "", errors.AuthenticationFailed),
        # Ollama, server/routes.go
        (404, '{"error":"model \'x\' not found"}', errors.ModelNotFound),
        (404, '{"error":"model \\"x\\" not found, try pulling it first"}', errors.ModelNotFound),
        (400, '{"error":"the input length exceeds the context length"}', errors.ContextOverflow),
        (400, '{"error":"{\\"error\\":{\\"code\\":400,\\"message\\":\\"request (612 tokens) exceeds the available context size (512 tokens)\\",\\"type\\":\\"exceed_context_size_error\\"}}"}', errors.ContextOverflow),
        (400, '{"error":"\\"llama3\\" does not support embeddings"}', errors.Unsupported),
        (401, '{"error":"unauthorized","signin_url":"https://ollama.com/connect"}', errors.AuthenticationFailed),
        (503, '{"error":"server busy, please try again. maximum pending requests exceeded"}', errors.Overloaded),
        # vLLM, newer and older form
        (400, '{"error":{"message":"This model\'s maximum context length is 512 tokens. However, you requested 900 tokens","code":400}}', errors.ContextOverflow),
        (400, '{"object":"error","message":"This model\'s maximum context length is 512 tokens.","code":400}', errors.ContextOverflow),
        (404, '{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}', errors.ModelNotFound),
        # llama.cpp
        (503, '{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', errors.ModelLoading),
        # infinity
        (422, '{"error":{"message":"List should have at most 2048 items after validation, not 2049","type":null,"code":422}}', errors.BatchTooLarge),
        # others with a limit for all texts of a request together
        (413, '{"message":"batch size 100 > maximum allowed batch size 32","code":413,"type":"Validation"}', errors.BatchTooLarge),
        (400, '{"error":{"message":"Requested 350000 tokens, max 300000 tokens per request","code":"max_tokens_per_request"}}', errors.BatchTooLarge),
        (400, '{"detail":"The max allowed tokens per submitted batch is 120000. Your batch has 200000 tokens."}', errors.BatchTooLarge),
        (400, '{"message":"Too many tokens overall, split into more batches."}', errors.BatchTooLarge),
        (400, '{"error":{"message":"array too long. Expected an array with maximum length 2048, but got 3000"}}', errors.BatchTooLarge),
        (400, '{"message":"invalid request: total number of texts must be at most 96 - received 128"}', errors.BatchTooLarge),
        # the router and its providers
        (400, '{"error":"Model not supported by provider together"}', errors.ModelNotFound),
        (402, '{"error":"You have exceeded your monthly included credits for Inference Providers."}', errors.PaymentRequired),
        (403, '{"error":"This authentication method does not have sufficient permissions to call Inference Providers"}', errors.PermissionDenied),
        (400, '{"error":{"message":"Incorrect API key provided"}}', errors.AuthenticationFailed),
        # others
        (400, '["a list"]', errors.InvalidRequest),
        (418, "", errors.InvalidRequest),
        (502, "<html><head><title>502 Bad Gateway</title></head></html>", errors.ServerError),
        (529, "", errors.Overloaded),
        (302, "", errors.BadResponse),
        (999, "", errors.BadResponse),
    ],
)  # fmt: skip
def test_what_servers_say_is_sorted_into_one_class(status: int, body: str, kind: type[Exception]) -> None:
    error = classify(status, {}, body.encode())
    assert type(error) is kind, str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "3600"}, 60.0),
        ({"retry-after": "Fri, 20 Nov 2026 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 07:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
    ],
)
def test_retry_after_is_read_in_every_form_and_capped(headers: dict[str, str], seconds: float | None) -> None:
    eight_o_clock = 1795161600.0
    found = retry_after_seconds(headers, now=eight_o_clock)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_limits_that_the_server_names_come_along() -> None:
    too_many: Any = classify(422, {}, b'{"error":"batch size 64 > maximum allowed batch size 32"}')
    assert too_many.max_texts == 32
    too_long: Any = classify(400, {}, b'{"error":{"message":"This model\'s maximum context length is 512 tokens."}}')
    assert too_long.limit == 512
    with_answer: Any = classify(
        422,
        {},
        b'{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1512. Given: 2 `inputs` tokens '
        b'and 10000 `max_new_tokens`","error_type":"validation"}',
    )
    assert (type(with_answer), with_answer.limit) == (errors.ContextOverflow, 1512)


def test_the_servers_own_words_and_the_way_out_are_in_the_message() -> None:
    assert (
        str(classify(404, {}, b'{"error":"model x not found"}', target="ollama:x"))
        == "ollama:x: model x not found (HTTP 404)"
    )
    assert "hf-gateway doctor" in str(classify(401, {}, b"", target="hf"))
    assert "HTTP 401 with an empty body" in str(classify(401, {}, b"", target="hf"))
    assert "an HTML page titled '502 Bad Gateway'" in str(classify(502, {}, b"<html><title>502 Bad Gateway</title>"))


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GatewayError)]
)
def test_every_error_survives_pickling(kind: type[errors.GatewayError]) -> None:
    made = (
        errors.AllTargetsFailed([errors.RateLimited("slow", target="a", retry_after=3.0)])
        if kind is errors.AllTargetsFailed
        else kind("what happened", target="hf")
    )
    made.attempts = (errors.Attempt("hf", "failed", "x", 1.0),)
    back = pickle.loads(pickle.dumps(made))
    assert (type(back), str(back), back.attempts, back.target) == (type(made), str(made), made.attempts, made.target)


def test_an_error_that_was_restated_survives_copying_and_pickling() -> None:
    made = errors.AllTargetsFailed([errors.RateLimited("slow", target="a", retry_after=3.0)])
    restated = made.restated(f"texts 0 to 31 of the stream: {made.message}", 2.0)
    for again in (copy.copy(restated), pickle.loads(pickle.dumps(restated))):
        assert str(again) == str(restated)
        assert again.retry_after == 2.0
        assert str(again.errors[0]) == "a: slow"
    assert str(made).startswith("none of the 1 targets")
