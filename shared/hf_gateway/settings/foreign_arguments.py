"""Arguments of other libraries' classes, and what to write here instead.

The table is data only. A class that is called with an argument that it does not have answers with the first hint that applies
to it; docs/migrate.md is generated from the same table.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Hint:
    """What replaces an argument of another library."""

    advice: str
    """What to write, or why nothing is to be written, as it continues the sentence "X has no argument 'y'; …"."""
    argument: str | None = None
    """An argument of our class that the advice is about: the hint applies to classes that have it. None applies to all."""


_MODEL = (Hint("use `model`", "model"), Hint("use `model_name`", "model_name"))
_KEY = (Hint("use `api_key`, or set HF_TOKEN"),)
_QUERY = (Hint("use `query_prompt`", "query_prompt"), Hint("put it into the system message"))
_DOCUMENT = (Hint("use `document_prompt`", "document_prompt"), Hint("put it into the system message"))
_CLIENT = (Hint("leave it out: connections are made from `targets=[…]`"),)
_HEADERS = (
    Hint(
        "leave it out: a server's key is `Target(…, credential=…)`, an account to bill is `options={'bill_to': …}` of `hf`"
    ),
)
_PROGRESS = (
    Hint(
        "leave it out: `embed_stream` of the gateway gives vectors as they come, `hf-gateway embed-corpus` shows progress"
    ),
)
_DEVICE = (Hint("use `targets=[Target('local', options={'device': …})]`"),)
_OLLAMA_OPTION = (Hint("use `targets=[Target('ollama', options={'options': {…}})]`, which takes Ollama's own options"),)
_OUT_OF_SAMPLING = Hint("leave it out: embeddings are not sampled")
_SERVER_OPTIONS = Hint("leave it out: options of a server go to `Target(…, options={…})`")
_BODY = (
    Hint("use `extra_body={…}`", "extra_body"),
    _SERVER_OPTIONS,
)
_TOKENS = (Hint("use `max_tokens`", "max_tokens"), _OUT_OF_SAMPLING)
_PROCESSES = (
    Hint("leave it out: a model in this process uses all cores; `hf-gateway embed-corpus` runs several processes"),
)
_OPENAI_ADDRESS = (Hint("use `targets=['openai:<url>']`"),)
_OPENAI_KEY = (Hint("use `api_key`, or `Target('openai', url=…, credential='env:NAME')` beside other targets"),)
_AZURE = (Hint("leave it out: it is for Azure's own routes, which no kind of target has"),)
_RESPONSES = (Hint("leave it out: servers are asked by their chat completions, not by the Responses API"),)
_TEXTS_AS_TEXTS = (Hint("leave it out: texts are sent as texts, and the model's own tokenizer counts"),)
_WHOLE_TEXTS = (
    Hint("leave it out: no text is divided into parts whose vectors are averaged; a longer one is an error"),
)
_RETRY_SECONDS = (Hint("leave it out: `max_retries` and `timeout` are the bounds"),)
_ADDRESS = (Hint("use `targets=[…]`: 'ollama' (at OLLAMA_HOST), 'tei:<url>', 'openai:<url>' or 'endpoint:<url>'"),)

HINTS: Mapping[str, tuple[Hint, ...]] = {
    "additional_kwargs": (
        Hint("use `extra_body={…}`, or `targets=[Target('ollama', options={'options': {…}})]`", "extra_body"),
        _SERVER_OPTIONS,
    ),
    "allowed_special": _TEXTS_AS_TEXTS,
    "api_base": _OPENAI_ADDRESS,
    "api_version": _AZURE,
    "async_client": _CLIENT,
    "async_client_kwargs": _CLIENT,
    "async_http_client": _CLIENT,
    "auth_token": _KEY,
    "base_url": _ADDRESS,
    "cache_folder": (Hint("set HF_HUB_CACHE, the folder of downloaded models; `cache=…` keeps vectors"),),
    "check_embedding_ctx_length": _WHOLE_TEXTS,
    "chunk_size": (Hint("leave it out: batches are made by the limits of the server"),),
    "client": _CLIENT,
    "client_kwargs": _CLIENT,
    "context_management": _RESPONSES,
    "context_window": (
        Hint("leave it out: the model's own length is used, and a text beyond it is an error unless `truncate=True`"),
    ),
    "cookies": _HEADERS,
    "default_headers": _HEADERS,
    "default_query": _HEADERS,
    "deployment": _AZURE,
    "device": _DEVICE,
    "disabled_params": (Hint("leave it out: only what is set is sent"),),
    "disallowed_special": _TEXTS_AS_TEXTS,
    "do_sample": (Hint("use `temperature`; 0 is without sampling"),),
    "embed_batch_size": (
        Hint(
            "leave it out: the server's limits are used; `targets=[Target('local', options={'batch_size': …})]` sets it"
        ),
    ),
    "embedding_ctx_length": _WHOLE_TEXTS,
    "encode_kwargs": (
        Hint("use `normalize`, `query_prompt`, `document_prompt`, or `Target('local', options={'batch_size': …})`"),
    ),
    "endpoint": (Hint("leave it out: `targets=['tei:<url>']` needs the address alone"),),
    "endpoint_url": (
        Hint("use `targets=['endpoint:<url>']`, or 'tei:<url>' or 'openai:<url>' for a server of your own"),
    ),
    "frequency_penalty": (_OUT_OF_SAMPLING,),
    "headers": _HEADERS,
    "http_async_client": _CLIENT,
    "http_client": _CLIENT,
    "http_socket_options": _CLIENT,
    "huggingfacehub_api_token": _KEY,
    "include": _RESPONSES,
    "include_response_headers": (
        Hint("leave it out: `response_metadata['hf_gateway']` has who answered and each attempt"),
    ),
    "inference_server_url": (Hint("use `targets=['openai:<url>']`, or 'tei:<url>' for text-embeddings-inference"),),
    "is_chat_model": (Hint("leave it out: models are asked through their chat template"),),
    "is_function_calling_model": (
        Hint("leave it out: tools are passed on, and a target that cannot use them is skipped"),
    ),
    "json_mode": (Hint("leave it out: use `with_structured_output` (LangChain) or `as_structured_llm` (LlamaIndex)"),),
    "keep_alive": (Hint("use `targets=[Target('ollama', options={'keep_alive': …})]`"),),
    "llm": (Hint("leave it out: `model` and `targets=[…]` say which model answers, and where"),),
    "logit_bias": _BODY,
    "max_completion_tokens": _TOKENS,
    "max_length": (
        Hint(
            "use `truncate=True` to have texts cut at the model's own length; otherwise a longer one is an error",
            "truncate",
        ),
    ),
    "max_new_tokens": _TOKENS,
    "mirostat": _OLLAMA_OPTION,
    "mirostat_eta": _OLLAMA_OPTION,
    "mirostat_tau": _OLLAMA_OPTION,
    "model_id": _MODEL,
    "model_kwargs": (
        Hint("use `extra_body={…}` for what a server takes", "extra_body"),
        Hint(
            "use `revision`, or `targets=[Target('local', options={…})]`, which has device, dtype, engine and trust_remote_code"
        ),
    ),
    "model_name": _MODEL,
    "multi_process": _PROCESSES,
    "n": (Hint("leave it out: one request has one answer; call `batch` or `generate` for several"),),
    "num_ctx": (Hint("use `targets=[Target('ollama', options={'num_ctx': …})]`"),),
    "num_gpu": _OLLAMA_OPTION,
    "num_output": _TOKENS,
    "num_predict": _TOKENS,
    "num_thread": _OLLAMA_OPTION,
    "num_workers": (Hint("use `max_concurrency`", "max_concurrency"), *_PROCESSES),
    "ollama_additional_kwargs": _OLLAMA_OPTION,
    "openai_api_base": _OPENAI_ADDRESS,
    "openai_api_key": _OPENAI_KEY,
    "openai_api_type": _AZURE,
    "openai_api_version": _AZURE,
    "openai_organization": _HEADERS,
    "openai_proxy": (Hint("set HTTPS_PROXY"),),
    "organization": _HEADERS,
    "parallel_process": _PROCESSES,
    "pooling": (
        Hint(
            "leave it out: pooling is read from the model's files; `Target(…, space=…)` declares another vector space"
        ),
    ),
    "prompt_cache_options": _BODY,
    "prompt_key": (Hint("leave it out: `complete` sends the prompt as a message"),),
    "provider": (Hint("use `targets=['hf:<provider>']`; 'hf:cheapest' and 'hf:fastest' choose one for chat"),),
    "query_encode_kwargs": (
        Hint("use `query_prompt`; `normalize` is for queries and documents alike", "query_prompt"),
    ),
    "query_instruction": _QUERY,
    "reasoning": (Hint("use `reasoning_effort`", "reasoning_effort"), _OUT_OF_SAMPLING),
    "repeat_last_n": _OLLAMA_OPTION,
    "repeat_penalty": (Hint("use `repetition_penalty`", "repetition_penalty"), _OUT_OF_SAMPLING),
    "repo_id": _MODEL,
    "request_timeout": (Hint("use `timeout`, for a request over all targets, and `attempt_timeout`, for one call"),),
    "retry_max_seconds": _RETRY_SECONDS,
    "retry_min_seconds": _RETRY_SECONDS,
    "return_full_text": (Hint("leave it out: an answer never repeats the prompt"),),
    "reuse_client": _CLIENT,
    "root_async_client": _CLIENT,
    "root_client": _CLIENT,
    "seed": (_OUT_OF_SAMPLING,),
    "server_kwargs": _CLIENT,
    "service_tier": _BODY,
    "show_progress": _PROGRESS,
    "show_progress_bar": _PROGRESS,
    "skip_empty": (Hint("leave it out: an empty text is an error, so drop it before"),),
    "stop": (_OUT_OF_SAMPLING,),
    "stop_sequences": (Hint("use `stop`", "stop"), _OUT_OF_SAMPLING),
    "store": _BODY,
    "stream_chunk_timeout": (Hint("use `stall_timeout`", "stall_timeout"),),
    "stream_usage": (
        Hint("leave it out: streams ask for the usage; `Target(…, options={'stream_usage': False})` stops that"),
    ),
    "sync_client_kwargs": _CLIENT,
    "target_devices": _DEVICE,
    "task": (Hint("leave it out: each class is for one task"),),
    "temperature": (_OUT_OF_SAMPLING,),
    "text_instruction": _DOCUMENT,
    "tfs_z": _OLLAMA_OPTION,
    "thinking": (Hint("use `reasoning_effort`", "reasoning_effort"), _OUT_OF_SAMPLING),
    "tiktoken_enabled": _TEXTS_AS_TEXTS,
    "tiktoken_model_name": _TEXTS_AS_TEXTS,
    "token": _KEY,
    "tokenizer": (Hint("leave it out: the model's own is used"),),
    "tokenizer_name": (Hint("leave it out: the model's own is used"),),
    "top_k": (_OUT_OF_SAMPLING,),
    "top_p": (_OUT_OF_SAMPLING,),
    "truncate": (
        Hint("leave it out: a prompt that is too long is an error, or goes to a target whose model takes it"),
    ),
    "truncate_text": (Hint("use `truncate=True`", "truncate"),),
    "truncation": _RESPONSES,
    "trust_remote_code": (
        Hint("use `targets=[Target('local', options={'trust_remote_code': True})]`, with a commit as `revision`"),
    ),
    "typical_p": _BODY,
    "use_previous_response_id": _RESPONSES,
    "use_responses_api": _RESPONSES,
    "validate_model_on_init": (Hint("leave it out: `gateway.check()` and `hf-gateway doctor` ask every target"),),
    "verbosity": _BODY,
    "watermark": _BODY,
}
"""Argument of another library's class → hints in order; the first applies that needs no argument or one that our class has."""


def hint_for(name: str, known: Collection[str]) -> str | None:
    """Return what to write instead of an argument of another library, or None for a name that none of them has.

    Args:
        name: the unknown argument.
        known: the arguments of our class.
    """
    applying = (hint.advice for hint in HINTS.get(name, ()) if hint.argument is None or hint.argument in known)
    return next(applying, None)
