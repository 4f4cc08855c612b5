"""Hugging Face: the Inference Providers router, and as much of the Hub as metadata and downloads need."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from tests.servers import Embed, normalized, tokens, unit_vectors
from tests.servers.chat import Brain, default_brain, media_of
from tests.servers.labels import run_pipeline
from tests.servers.loopback import Loopback, Recorded, Reply, Stream
from tests.servers.openai import ChatForm, chat_refusal, embedding_list, error

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
REQUEST_ID = "Root=1-67dd4eec-07e37dfb1b8f0c5561175b24;afdb7922-1f75-40db-8230-fce532bc143d"

_FEATURE_EXTRACTION = re.compile(r"/hf-inference/models/(?P<model>.+)/pipeline/feature-extraction")
_CLASSIFIER = re.compile(r"/hf-inference/models/(?P<model>[^/]+/[^/]+)")
_OPENAI_ROUTES = {
    "/scaleway/v1/embeddings": "scaleway",
    "/deepinfra/v1/openai/embeddings": "deepinfra",
    "/together/v1/embeddings": "together",
}


_CHAT = "/v1/chat/completions"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
CATALOGUE: list[dict[str, Any]] = [
    {
        "id": LLAMA,
        "object": "model",
        "created": 1720000000,
        "owned_by": "meta-llama",
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "providers": [
            {
                "provider": "nebius",
                "status": "live",
                "context_length": 131072,
                "pricing": {"input": 0.05, "output": 0.15},
                "supports_tools": True,
                "supports_structured_output": True,
                "is_model_author": False,
            },
            {
                "provider": "novita",
                "status": "live",
                "context_length": 16384,
                "pricing": {"input": 0.02, "output": 0.04},
                "supports_tools": True,
                "supports_structured_output": False,
                "is_model_author": False,
            },
            {"provider": "featherless-ai", "status": "staging", "is_model_author": False},
        ],
    },
    {
        "id": "Qwen/Qwen2.5-VL-7B-Instruct",
        "object": "model",
        "created": 1737000000,
        "owned_by": "Qwen",
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "providers": [
            {
                "provider": "hyperbolic",
                "status": "live",
                "context_length": 32768,
                "pricing": {"input": 0.2, "output": 0.2},
                "supports_tools": True,
                "supports_structured_output": True,
                "is_model_author": False,
            }
        ],
    },
    {
        "id": "google/gemma-2-2b-it",
        "object": "model",
        "created": 1721000000,
        "owned_by": "google",
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "providers": [
            {
                "provider": "nscale",
                "status": "live",
                "supports_tools": False,
                "supports_structured_output": False,
                "is_model_author": False,
            }
        ],
    },
]
"""What `GET /v1/models` lists: made up, in the form recorded; what a provider does not say of itself is not there."""


def loading(model: str = MINILM, estimated_time: float = 20.0) -> Reply:
    """Return hf-inference's 503 while it loads a model (recorded 2025)."""
    body = {"error": f"Model {model} is currently loading", "estimated_time": estimated_time}
    return Reply(503, body, {"x-request-id": REQUEST_ID})


def rate_limited(retry_after: str | None = None) -> Reply:
    """Return hf-inference's 429 (recorded 2024), with a Retry-After if one is given: seconds or an HTTP date."""
    headers = {"x-request-id": REQUEST_ID} | ({"retry-after": retry_after} if retry_after else {})
    return Reply(429, {"error": "Rate limit reached. Please log in or use a HF access token"}, headers)


class FakeRouter(Loopback):
    """The router: feature extraction on hf-inference, OpenAI's form on scaleway, deepinfra and together, and chat.

    `models` maps a Hub id to the providers that have it, each with its own id for it. `tokens` may call everything,
    `unscoped` lack the inference permission (403), `exhausted` have no credit left (402); any other gets 401. With
    `nested` hf-inference answers [n][tokens][dim], as it does for a plain transformers model.

    Chat models are those of `catalogue`, "model:provider", "model:cheapest" and "model:fastest" (as without a suffix, the
    first live one) among them. They answer with `brain`, in the way the fields of `ChatForm` given by name say. A
    provider without tools leaves them unread. `classifiers` maps a model to its pipeline of labels, on hf-inference.
    """

    def __init__(
        self,
        *,
        embed: Embed = unit_vectors,
        models: Mapping[str, Mapping[str, str]] | None = None,
        nested: bool = False,
        prompts: Mapping[str, str] | None = None,
        tokens: Collection[str] = ("hf_test",),
        unscoped: Collection[str] = ("hf_unscoped",),
        exhausted: Collection[str] = ("hf_exhausted",),
        user: str = "x",
        catalogue: Sequence[Mapping[str, Any]] = tuple(CATALOGUE),
        brain: Brain = default_brain,
        classifiers: Mapping[str, str] | None = None,
        **form: Any,
    ) -> None:
        """Start it; without `models` all four providers have all-MiniLM-L6-v2, scaleway as "all-minilm-l6-v2"."""
        self.embed = embed
        self.models = models or {
            MINILM: {"hf-inference": MINILM, "scaleway": "all-minilm-l6-v2", "deepinfra": MINILM, "together": MINILM}
        }
        self.nested = nested
        self.prompts = prompts or {}
        self.tokens = tokens
        self.unscoped = unscoped
        self.exhausted = exhausted
        self.user = user
        self.catalogue = {model["id"]: model for model in catalogue}
        self.brain = brain
        self.classifiers = classifiers or {}
        self.form = ChatForm(**form)
        super().__init__()

    @property
    def billed(self) -> list[str | None]:
        """Who was to pay for each chat: the organization in X-HF-Bill-To, None for the token's own user."""
        return [request.headers.get("x-hf-bill-to") for request in list(self.requests) if request.path == _CHAT]

    def handle(self, request: Recorded) -> Reply | Stream:
        """Route."""
        if request.method == "GET" and request.path.startswith("/v1/models"):
            return self._listed(request.path.removeprefix("/v1/models").strip("/"))
        if request.method == "POST" and request.path == _CHAT:
            return self._chat(request)
        if request.method == "POST" and (classifier := _CLASSIFIER.fullmatch(request.path)):
            return self._refusal(request.bearer) or self._classified(classifier["model"], request)
        extraction = _FEATURE_EXTRACTION.fullmatch(request.path)
        provider = "hf-inference" if extraction else _OPENAI_ROUTES.get(request.path)
        if provider is None or request.method != "POST":
            return _text(404, "Not Found")
        refusal = self._refusal(request.bearer)
        if refusal is not None:
            return refusal
        try:
            body = request.json
        except ValueError:
            return _error(400, "Invalid JSON")
        if extraction:
            return self._extract(extraction["model"], body)
        return self._openai(provider, body)

    def _refusal(self, token: str | None) -> Reply | None:
        if token in self.exhausted:
            return _error(
                402,
                "You have exceeded your monthly included credits for Inference Providers. "
                "Subscribe to PRO to get 20x more monthly included credits.",
            )
        if token in self.unscoped:
            return _error(
                403,
                "This authentication method does not have sufficient permissions to call Inference Providers "
                f"on behalf of user {self.user}",
            )
        if token not in self.tokens:
            message = "Invalid username or password."
            realm = 'Bearer realm="Authentication required", charset="UTF-8"'
            return _error(401, message, {"x-error-message": message, "www-authenticate": realm})
        return None

    def _extract(self, model: str, body: dict[str, Any]) -> Reply:
        if "hf-inference" not in self.models.get(model, {}):
            return _text(404, "Not Found")
        inputs = body.get("inputs")
        if not inputs or not (isinstance(inputs, str) or all(isinstance(text, str) for text in inputs)):
            return _error(400, ["Error in `inputs`: field required"])
        prompt = self.prompts.get(body.get("prompt_name", ""), "")
        texts = [prompt + text for text in ([inputs] if isinstance(inputs, str) else inputs)]
        headers = {
            "x-compute-type": "cpu",
            "x-compute-time": "0.042",
            "x-compute-characters": str(sum(map(len, texts))),
            "x-inference-id": "88NGZ6WQPK49k6-kiBEQQ",
        }
        if self.nested:
            return self._served("hf-inference", [unit_vectors(tokens(text)) for text in texts], headers)
        vectors = [vector[: body.get("dimensions")] for vector in self.embed(texts)]
        if body.get("normalize"):
            vectors = [normalized(vector) for vector in vectors]
        return self._served("hf-inference", vectors[0] if isinstance(inputs, str) else vectors, headers)

    def _classified(self, model: str, request: Recorded) -> Reply:
        """Run the one pipeline that the model is tagged with: an image comes as bytes, or in base64 with parameters."""
        pipeline = self.classifiers.get(model)
        if pipeline is None:
            return _text(404, "Not Found")
        headers = {"x-compute-type": "cpu", "x-compute-characters": "-1", "x-sha": "0" * 40}
        if request.headers["content-type"].startswith("image/"):
            body: dict[str, Any] = {"inputs": request.body}
        else:
            body = request.json
            if pipeline == "image-classification":
                body["inputs"] = base64.b64decode(body["inputs"], validate=True)
        if not body.get("inputs"):
            return _error(400, ["Error in `inputs`: field required"])
        found = run_pipeline(pipeline, body, 5 if pipeline == "image-classification" else None)
        # A text without `top_k` comes back as a list in a list (recorded 2025).
        nested = pipeline == "text-classification" and "top_k" not in body["parameters"]
        return self._served("hf-inference", [found] if nested else found, headers)

    def _openai(self, provider: str, body: dict[str, Any]) -> Reply:
        model = body.get("model", "")
        if model not in {providers.get(provider) for providers in self.models.values()}:
            # The router's own wording and status: huggingface/huggingface.js#2225.
            return _error(400, f"Model not supported by provider {provider}")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = self.embed(texts)
        if dimensions := body.get("dimensions"):
            vectors = [normalized(vector[:dimensions]) for vector in vectors]
        count = sum(len(tokens(text)) for text in texts)
        return self._served(provider, embedding_list(vectors, model, count, body.get("encoding_format") or "float"))

    def _listed(self, name: str) -> Reply:
        if not name:
            return Reply(200, {"object": "list", "data": list(self.catalogue.values())})
        model = self.catalogue.get(name)
        return Reply(200, dict(model)) if model else _no_model(404, f"The requested model '{name}' does not exist")

    def _chat(self, request: Recorded) -> Reply | Stream:
        refusal = self._refusal(request.bearer)
        if refusal is not None:
            return refusal
        try:
            body = request.json
        except ValueError:
            return _error(400, "Invalid JSON")
        name, _, wanted = body.get("model", "").partition(":")
        model = self.catalogue.get(name)
        if model is None:
            return _no_model(400, f"The requested model '{name}' does not exist")
        provider = _provider(model, wanted)
        if provider is None:
            by = f"provider '{wanted}'" if wanted else "any provider you have enabled"
            return _no_model(400, f"The requested model '{name}' is not supported by {by}.", "model_not_supported")
        refusal = chat_refusal(body, max_context=provider.get("context_length")) or _blind(model, body)
        if refusal is not None:
            return refusal
        if not provider.get("supports_tools"):
            body = {key: value for key, value in body.items() if key not in ("tools", "tool_choice")}
        # A provider has its own name for the model, and answers with that.
        own = {"model": name.rpartition("/")[2]}
        headers = {"x-inference-provider": provider["provider"], "inference-id": "{id}", "x-request-id": REQUEST_ID}
        return self.form.answer(body | own, self.brain(body), headers)

    def _served(self, provider: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        ids = {"x-inference-provider": provider, "x-request-id": REQUEST_ID}
        return Reply(200, body, {**ids, **(headers or {})})


def _provider(model: Mapping[str, Any], wanted: str) -> Mapping[str, Any] | None:
    """Return the live provider that a suffix means: a way of choosing, a name, or "" for none."""
    live = [provider for provider in model["providers"] if provider["status"] == "live"]
    if wanted == "cheapest":
        live.sort(key=lambda provider: provider.get("pricing", {}).get("output", math.inf))
    elif wanted not in ("", "fastest", "preferred"):
        live = [provider for provider in live if provider["provider"] == wanted]
    return live[0] if live else None


def _no_model(status: int, message: str, code: str = "model_not_found") -> Reply:
    return error(status, message, "invalid_request_error", code=code, param="model")


def _blind(model: Mapping[str, Any], body: Mapping[str, Any]) -> Reply | None:
    """Return the refusal of images by a model that reads text alone."""
    shown = any("image_url" in media_of(message) for message in body["messages"])
    if not shown or "image" in model["architecture"]["input_modalities"]:
        return None
    return error(400, f"{model['id']} is not a multimodal model", "BadRequestError", code=400)


@dataclass(frozen=True)
class HubModel:
    """A model repository on the Hub: the files of `folder`, at one commit.

    `providers` is its inferenceProviderMapping, a list of {provider, providerId, status, task}. `readers` are the
    tokens that may read it when it is gated or private. `refs` are revisions that lead to the same commit.
    """

    folder: Path | None = None
    gated: Literal[False, "auto", "manual"] = False
    private: bool = False
    readers: Collection[str] = ()
    providers: Sequence[Mapping[str, str]] = ()
    pipeline_tag: str = "sentence-similarity"
    library_name: str = "sentence-transformers"
    tags: Sequence[str] = ("sentence-transformers", "safetensors", "feature-extraction")
    sha: str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    refs: Collection[str] = ("main",)

    @property
    def files(self) -> dict[str, "_File"]:
        """The files by their path in the repository."""
        if self.folder is None:
            return {}
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): _read_file(path, path.stat().st_mtime_ns) for path in found}


@dataclass(frozen=True)
class _File:
    """What the Hub knows about a file: git's id for it and, for large-file storage, its SHA-256."""

    path: Path
    size: int
    blob_id: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob_id

    @property
    def lfs(self) -> dict[str, Any]:
        if self.sha256 is None:
            return {}
        return {"lfs": {"oid": self.sha256, "sha256": self.sha256, "size": self.size, "pointerSize": 134}}


@lru_cache(maxsize=1024)
def _read_file(path: Path, _modified: int) -> _File:
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    large = path.suffix in {".safetensors", ".bin", ".onnx", ".pt", ".h5"}
    return _File(path, len(content), blob, hashlib.sha256(content).hexdigest() if large else None)


class FakeHub(Loopback):
    """The Hub with `models`: `model_info`, tree, downloads and `whoami`, enough for `snapshot_download`.

    `users` maps a token to its user; a token not in it gets 401 everywhere. `mapping_form` is how
    inferenceProviderMapping is written: the Hub's `model_info` has sent a dict by provider, its lists a list.
    """

    def __init__(
        self,
        models: Mapping[str, HubModel] | None = None,
        *,
        users: Mapping[str, str] | None = None,
        mapping_form: Literal["list", "dict"] = "list",
    ) -> None:
        """Start it; without `models` it has all-MiniLM-L6-v2, without files, on hf-inference."""
        on_hf = {"provider": "hf-inference", "providerId": MINILM, "status": "live", "task": "feature-extraction"}
        self.models = {MINILM: HubModel(providers=[on_hf])} if models is None else models
        self.users = {"hf_test": "x"} if users is None else users
        self.mapping_form = mapping_form
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        token = request.bearer
        if token is not None and token not in self.users:
            return _hub_error(401, None, "Invalid credentials in Authorization header")
        # The raw path: a revision such as refs/pr/1 arrives percent-encoded.
        path = request.target.partition("?")[0]
        if path == "/api/whoami-v2":
            return self._whoami(token)
        if found := _RESOLVE.fullmatch(path):
            return self._resolve(request, found["id"], unquote(found["revision"]), unquote(found["file"]))
        found = _API.fullmatch(path)
        if found is None or request.method != "GET":
            return _hub_error(404, None, "Sorry, we can't find the page you are looking for.")
        model = self._readable(found["id"], token)
        if isinstance(model, Reply):
            return model
        revision = unquote(found["revision"] or "main")
        if revision not in (model.sha, *model.refs):
            return _hub_error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if found["kind"] == "tree":
            return Reply(200, _tree(model), {"x-request-id": REQUEST_ID})
        if found["check"]:
            return _gate(found["id"], model, token) or Reply(200, {}, {"x-request-id": REQUEST_ID})
        return Reply(200, self._info(found["id"], model, request.query), {"x-request-id": REQUEST_ID})

    def _readable(self, name: str, token: str | None) -> HubModel | Reply:
        """Return the model, or the refusal that tells a private one from a missing one to nobody."""
        model = self.models.get(name)
        if model is not None and (not model.private or token in model.readers):
            return model
        if token is None:
            return _hub_error(401, "RepoNotFound", "Invalid username or password.")
        return _hub_error(404, "RepoNotFound", "Repository not found")

    def _resolve(self, request: Recorded, name: str, revision: str, file: str) -> Reply:
        model = self._readable(name, request.bearer)
        if isinstance(model, Reply):
            return model
        refusal = _gate(name, model, request.bearer)
        if refusal is not None:
            return refusal
        if revision not in (model.sha, *model.refs):
            return _hub_error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        found = model.files.get(file)
        if found is None:
            return _hub_error(404, "EntryNotFound", "Entry not found")
        return _content(found, model.sha, request.headers.get("range"))

    def _whoami(self, token: str | None) -> Reply:
        if token is None:
            return _hub_error(401, None, "Invalid username or password.")
        return Reply(200, {"type": "user", "name": self.users[token], "auth": {"type": "access_token"}})

    def _info(self, name: str, model: HubModel, query: Mapping[str, list[str]]) -> dict[str, Any]:
        mapping: Any = [dict(entry) for entry in model.providers]
        if self.mapping_form == "dict":
            mapping = {entry.pop("provider"): entry for entry in mapping}
        blobs = "blobs" in query
        known = {
            "author": name.partition("/")[0],
            "sha": model.sha,
            "lastModified": "2025-03-06T13:37:44.000Z",
            "createdAt": "2022-03-02T23:29:05.000Z",
            "private": model.private,
            "gated": model.gated,
            "disabled": False,
            "downloads": 1000,
            "likes": 10,
            "pipeline_tag": model.pipeline_tag,
            "library_name": model.library_name,
            "tags": list(model.tags),
            "config": _config(model),
            "usedStorage": sum(file.size for file in model.files.values()),
            "siblings": [
                {"rfilename": path} | ({"size": file.size, "blobId": file.blob_id} | file.lfs if blobs else {})
                for path, file in model.files.items()
            ],
            "inferenceProviderMapping": mapping,
        }
        ids = {"_id": "621ffdc136468d709f180294", "id": name}
        if "expand" in query:
            return ids | {key: known[key] for key in query["expand"] if key in known}
        # What the Hub sends unasked leaves the mapping out.
        del known["inferenceProviderMapping"]
        return ids | {"modelId": name} | known


_API = re.compile(
    r"/api/models/(?P<id>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<revision>[^/]+)|(?P<check>/auth-check))?/?"
)
_RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


def _gate(name: str, model: HubModel, token: str | None) -> Reply | None:
    """Return the refusal of a gated model's files; its metadata is public."""
    if not model.gated or token in model.readers:
        return None
    restricted = f"Access to model {name} is restricted"
    if token is None:
        message = f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
        return _hub_error(401, "GatedRepo", message)
    message = f"{restricted} and you are not in the authorized list. Visit https://huggingface.co/{name}"
    return _hub_error(403, "GatedRepo", f"{message} to ask for access.")


def _tree(model: HubModel) -> list[Any]:
    """Return the recursive listing: files and the directories above them."""
    folders = sorted({parent for path in model.files for parent in map(str, Path(path).parents)} - {"."})
    listed: list[Any] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
    for path, file in model.files.items():
        listed.append({"type": "file", "oid": file.blob_id, "size": file.size, "path": path} | file.lfs)
    return listed


def _config(model: HubModel) -> dict[str, Any]:
    file = model.files.get("config.json")
    config = json.loads(file.path.read_bytes()) if file else {}
    return {key: config[key] for key in ("architectures", "model_type") if key in config}


def _content(file: _File, commit: str, wanted: str | None) -> Reply:
    content = file.path.read_bytes()
    headers = {"etag": f'"{file.etag}"', "x-repo-commit": commit, "accept-ranges": "bytes", "x-request-id": REQUEST_ID}
    headers["content-type"] = "application/octet-stream"
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if found is None:
        return Reply(200, content, headers)
    start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    if start > end:
        return Reply(416, b"", headers | {"content-range": f"bytes */{len(content)}"})
    return Reply(206, content[start : end + 1], headers | {"content-range": f"bytes {start}-{end}/{len(content)}"})


def _error(status: int, error: str | list[str], headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"error": error}, {"x-request-id": REQUEST_ID, **(headers or {})})


def _text(status: int, body: str) -> Reply:
    return Reply(status, body, {"x-request-id": REQUEST_ID})


def _hub_error(status: int, code: str | None, message: str) -> Reply:
    headers = {"x-error-message": message} | ({"x-error-code": code} if code else {})
    return _error(status, message, headers)
