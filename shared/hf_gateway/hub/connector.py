"""The Hub, offline first: search, metadata, licences, compatibility, downloads, and adapters published."""

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hf_gateway.chain.effects import Steps
from hf_gateway.hub import download as downloads
from hf_gateway.hub import names
from hf_gateway.hub.cache import ModelCache
from hf_gateway.hub.client import HubClient
from hf_gateway.hub.compatibility import Compatibility
from hf_gateway.hub.download import Download, DownloadPlan, Progress
from hf_gateway.hub.errors import HubArgumentError, NotConnected
from hf_gateway.hub.licenses import License, license_of
from hf_gateway.hub.queries import HubQueries
from hf_gateway.hub.registry_names import RegistryNames
from hf_gateway.hub.selection import Format
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.runtime.progress_bar import progress_bar
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.hub_model import LIFETIME_HOURS, ModelMetadata, Models
from hf_gateway.wire.hub_account import HubAccount, decode_whoami, encode_whoami

WHOAMI_LIFETIME_S = 3600.0
"""Seconds for which the answer to whoami is believed; the Hub limits that question strictly."""


class HubConnector(RegistryNames):
    """One Hub and what is known of it on this machine. Every method has an async form with an `a` before its name.

    Reading public models needs no `connect`: without it, the token that any Hugging Face tool would find is used for
    huggingface.co, and none for any other Hub. Safe for threads.

    Args:
        endpoint: the Hub's base URL; by default HF_ENDPOINT, or huggingface.co.
        cache: where metadata are kept: a ModelCache or its folder; by default below HF_GATEWAY_HOME.
        ttl_hours: for how long they are fresh.
        transport, clock, environment: what tests replace.

    Raises:
        ConfigError: an endpoint that is never called (a metadata service, a link-local address), or that is no URL.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        cache: ModelCache | str | Path | None = None,
        ttl_hours: float = LIFETIME_HOURS,
        transport: Transport | None = None,
        clock: Clock | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Send nothing, open nothing."""
        self._client = HubClient(endpoint, transport=transport, clock=clock, environment=environment)
        self.endpoint = self._client.endpoint
        self.cache = cache if isinstance(cache, ModelCache) else ModelCache(cache, endpoint=self.endpoint)
        self._ask = HubQueries(self._client, self.cache, ttl_hours)
        self._clock = clock or Clock()
        self._connected = False
        self._account: tuple[float, HubAccount] | None = None

    def connect(self, token: str | Mapping[str, str] | None = None) -> Self:
        """Act as the account of a token from now on. Nothing is sent: `verify_connection` asks whether it is valid.

        token: a token, or `{"token": …}`; None takes the one that is found (HF_TOKEN, the keyring, `hf auth login`).

        Raises:
            HubArgumentError: a ValueError; the token has not the form `hf_…`. The message does not quote it.
            NotConnected: a RuntimeError; none was given, and none is found.
            ConfigError: the Hub's URL is plain http to somewhere else.
        """
        if isinstance(token, Mapping):
            token = token.get("token") or token.get("api_key") or ""
        if token is not None:
            self._client.use(names.hub_token(token))
        elif self._client.credential() is None:
            instead = names.where_a_token_is_from(self.endpoint, self._client.environment)
            raise NotConnected(f"there is no token to connect with: pass one; or else {instead}")
        self._account, self._connected = None, True
        return self

    async def aconnect(self, token: str | Mapping[str, str] | None = None) -> Self:
        """Do as `connect`; the token may be in a file, which is read on another thread."""
        return await asyncio.to_thread(self.connect, token)

    def verify_connection(self) -> HubAccount:
        """Ask the Hub whose token this is, and what it may do; the answer is kept for an hour.

        Raises:
            NotConnected: a RuntimeError; `connect` was not called.
            AuthenticationFailed: the token is not valid.
            ConnectFailed, AttemptTimedOut, RateLimited: the Hub cannot say.
        """
        found: HubAccount = self._client.run(self._verify())
        return found

    async def averify_connection(self) -> HubAccount:
        """Do as `verify_connection`."""
        found: HubAccount = await self._client.arun(self._verify())
        return found

    def search_models(
        self, query: str | None = "", filter_tags: Sequence[str] | None = (), sort: str = "downloads", limit: int = 20
    ) -> Models:
        """Search the Hub; where it cannot be asked, what is cached (`Models.source` says which).

        query: words in the id; filter_tags: tags that all must be there, such as `text-generation` or `license:mit`; sort:
        downloads, likes, trending or updated, the greatest first; limit: 1 to 1,000.

        Raises:
            HubArgumentError: an order or a limit that there is not.
            AuthenticationFailed: the token is not valid.
        """
        found: Models = self._client.run(self._ask.search(query or "", filter_tags or (), sort, limit))
        return found

    async def asearch_models(
        self, query: str | None = "", filter_tags: Sequence[str] | None = (), sort: str = "downloads", limit: int = 20
    ) -> Models:
        """Do as `search_models`."""
        found: Models = await self._client.arun(self._ask.search(query or "", filter_tags or (), sort, limit))
        return found

    def get_model_metadata(self, model_id: str, use_cache: bool = True) -> ModelMetadata | None:
        """Return what the Hub says of a model: from the cache while it is fresh; None for a model that it does not know.

        Where the Hub cannot be asked, something older is served, and its `stale` says why. use_cache=False asks in any case, and
        serves nothing old.

        Raises:
            HubArgumentError: a ValueError; not the id of a model. Nothing is sent.
            ConnectFailed, AttemptTimedOut, RateLimited, ServerError: the Hub cannot say, and nothing is cached.
            AuthenticationFailed: the token is not valid.
        """
        found: ModelMetadata | None = self._client.run(self._ask.metadata(model_id, use_cache))
        return found

    async def aget_model_metadata(self, model_id: str, use_cache: bool = True) -> ModelMetadata | None:
        """Do as `get_model_metadata`."""
        found: ModelMetadata | None = await self._client.arun(self._ask.metadata(model_id, use_cache))
        return found

    def check_license(self, model_id: str) -> License:
        """Return a model's licence, its class, and what that means for publishing an adapter; false where none is named.

        Raises ModelNotFound, and as `get_model_metadata`.
        """
        return _license(self._client.run(self._ask.required_metadata(model_id)))

    async def acheck_license(self, model_id: str) -> License:
        """Do as `check_license`."""
        return _license(await self._client.arun(self._ask.required_metadata(model_id)))

    def check_compatibility(
        self, model_id: str, required_library: str | None = None, context: int | None = None
    ) -> Compatibility:
        """Find out whether a model will run here and who else can serve it, from metadata and its config.json alone.

        As a condition the answer is as true as its `ok`.

        required_library: what the model must be for, such as `sentence-transformers`; context: tokens to reckon the key-value
        cache for, by default 4,096 or as many as the model takes. Raises ModelNotFound, and as `get_model_metadata`.
        """
        found: Compatibility = self._client.run(self._ask.compatibility(model_id, required_library, context))
        return found

    async def acheck_compatibility(
        self, model_id: str, required_library: str | None = None, context: int | None = None
    ) -> Compatibility:
        """Do as `check_compatibility`."""
        found: Compatibility = await self._client.arun(self._ask.compatibility(model_id, required_library, context))
        return found

    def download_model(
        self,
        model_id: str,
        revision: str = "main",
        cache_dir: str | Path | None = None,
        *,
        formats: Sequence[Format] | None = None,
        include: Sequence[str] | None = None,
        code: bool = False,
        progress: Progress | None = None,
    ) -> Download:
        """Download a model's files of one revision; what broke off before goes on from there.

        cache_dir: by default the cache of all Hugging Face tools. formats: by default safetensors, or ONNX where there are none;
        no pickles and no code unless they are asked for. include: patterns of paths, instead of the formats. progress: is told
        (bytes here, bytes in all); by default a bar where stderr is a terminal.

        Raises:
            HubArgumentError: not the id of a model, not a revision, or a pattern that matches nothing.
            ModelNotFound, GatedModel, KeyMissing, AuthenticationFailed: as the Hub says.
            UnsafeFiles: there are only pickles. NotEnoughSpace: the disk is too small. In both cases nothing is downloaded.
            ConnectFailed, AttemptTimedOut, RateLimited, BadResponse, OSError: what has come is kept.
        """
        order: DownloadPlan = self._client.run(
            self._ask.plan_download(model_id, revision, cache_dir, formats, include, code)
        )
        return _fetched(order, progress)

    async def adownload_model(
        self,
        model_id: str,
        revision: str = "main",
        cache_dir: str | Path | None = None,
        *,
        formats: Sequence[Format] | None = None,
        include: Sequence[str] | None = None,
        code: bool = False,
        progress: Progress | None = None,
    ) -> Download:
        """Do as `download_model`, on another thread; cancelled, it stops at the next piece."""
        order: DownloadPlan = await self._client.arun(
            self._ask.plan_download(model_id, revision, cache_dir, formats, include, code)
        )
        stop = downloads.Stop()
        try:
            return await asyncio.to_thread(_fetched, order, progress, stop)
        except asyncio.CancelledError:
            stop.set()
            raise

    def upload_artifact(self, path: str | Path, metadata: Mapping[str, Any]) -> Any:
        """Publish a PEFT adapter (`hf_gateway.hub.publish`), private unless metadata say `"private": False`.

        metadata: `repo_id`, what its card is to say, and the switches of `publish`.

        Raises:
            NotConnected: a RuntimeError; `connect` was not called.
            FileNotFoundError: there is nothing at the path.
            HubArgumentError: a ValueError; metadata has no `repo_id`.
        """
        return self._upload(path, metadata, None)

    def _upload(self, path: str | Path, metadata: Mapping[str, Any], stop: threading.Event | None) -> Any:
        if not self._connected:
            raise NotConnected("not connected: call connect(token) first, with a token that may write")
        folder = Path(path).expanduser()
        if not folder.exists():
            raise FileNotFoundError(f"{folder}: there is no such file or folder to publish")
        repo_id = metadata.get("repo_id")
        if not isinstance(repo_id, str) or not repo_id:
            raise HubArgumentError("metadata needs 'repo_id', such as 'you/your-adapter'")
        from hf_gateway.hub.publish import publish

        credential = self._client.credential()
        return publish(
            folder, repo_id=repo_id, credential=credential, endpoint=self.endpoint, metadata=metadata, stop=stop
        )

    async def aupload_artifact(self, path: str | Path, metadata: Mapping[str, Any]) -> Any:
        """Do as `upload_artifact`, on another thread; cancelled, it ends the process that sends."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._upload, path, metadata, stop)
        except asyncio.CancelledError:
            stop.set()
            raise

    def close(self) -> None:
        """Close connections and forget the token; the connector can be used, and connected, again afterwards."""
        self._connected, self._account = False, None
        self._client.close()

    async def aclose(self) -> None:
        """Do as `close`, with the connections of this event loop too."""
        self._connected, self._account = False, None
        await self._client.aclose()

    def disconnect(self) -> bool:
        """Do as `close`; returns True."""
        self.close()
        return True

    async def adisconnect(self) -> bool:
        """Do as `aclose`; returns True."""
        await self.aclose()
        return True

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show the Hub, and never a token."""
        return f"HubConnector(endpoint={self.endpoint!r}, connected={self._connected})"

    def _verify(self) -> Steps:
        if not self._connected:
            raise NotConnected("not connected: call connect(token) first")
        if self._account is not None and self._clock.now() < self._account[0]:
            return self._account[1]
        response: HttpResponse = yield from self._client.ask(encode_whoami(self.endpoint), "whoami")
        account = decode_whoami(response)
        self._account = (self._clock.now() + WHOAMI_LIFETIME_S, account)
        return account


def _license(found: ModelMetadata) -> License:
    return license_of(found.license or None, found.card_data, found.gated)


def _fetched(order: DownloadPlan, progress: Progress | None, stop: "downloads.Stop | None" = None) -> Download:
    with progress_bar(order.model, wanted=progress is None) as shown:
        return downloads.fetch(order, progress or shown, stop=stop)
