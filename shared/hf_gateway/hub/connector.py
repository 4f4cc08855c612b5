"""The Hub's public class, offline first: search, metadata, licences, compatibility, downloads and publishing."""

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
"""Seconds for which an answer of whoami is reused; the Hub limits that request strictly."""


class HubConnector(RegistryNames):
    """A Hub and its cache on this machine. Every method has an async form with the prefix `a`.

    Reading public models needs no `connect`: without it, requests to huggingface.co use the token that any Hugging
    Face tool would find, and requests to other Hubs use no token. Thread-safe.

    Args:
        endpoint: base URL of the Hub; by default HF_ENDPOINT, or huggingface.co.
        cache: a ModelCache, or the folder for one; by default a folder below HF_GATEWAY_HOME.
        ttl_hours: hours for which cached metadata are fresh.
        transport: sends the requests; replaced in tests.
        clock: measures and passes time; replaced in tests.
        environment: environment variables.

    Raises:
        ConfigError: the endpoint is not a URL, or must not be called (a metadata service, a link-local address).
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
        """Set up the client; nothing is sent or opened."""
        self._client = HubClient(endpoint, transport=transport, clock=clock, environment=environment)
        self.endpoint = self._client.endpoint
        self.cache = cache if isinstance(cache, ModelCache) else ModelCache(cache, endpoint=self.endpoint)
        self._ask = HubQueries(self._client, self.cache, ttl_hours)
        self._clock = clock or Clock()
        self._connected = False
        self._account: tuple[float, HubAccount] | None = None

    def connect(self, token: str | Mapping[str, str] | None = None) -> Self:
        """Use a token from now on. Nothing is sent: `verify_connection` checks whether it is valid.

        Args:
            token: a token, or `{"token": …}`; None to use the one that is found (HF_TOKEN, the keyring, `hf auth
                login`).

        Raises:
            HubArgumentError: a ValueError; the token does not have the form `hf_…`. The message does not quote it.
            NotConnected: a RuntimeError; no token was given and none was found.
            ConfigError: the Hub's URL is plain http to a public host.
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
        """Async form of `connect`; a file that contains the token is read in another thread."""
        return await asyncio.to_thread(self.connect, token)

    def verify_connection(self) -> HubAccount:
        """Return the account of the token and its permissions; the answer is reused for an hour.

        Raises:
            NotConnected: a RuntimeError; `connect` was not called.
            AuthenticationFailed: the token is not valid.
            ConnectFailed, AttemptTimedOut, RateLimited: the Hub could not be asked.
        """
        found: HubAccount = self._client.run(self._verify())
        return found

    async def averify_connection(self) -> HubAccount:
        """Async form of `verify_connection`."""
        found: HubAccount = await self._client.arun(self._verify())
        return found

    def search_models(
        self, query: str | None = "", filter_tags: Sequence[str] | None = (), sort: str = "downloads", limit: int = 20
    ) -> Models:
        """Search the Hub, or the cache if the Hub cannot be reached (`Models.source` tells which).

        Args:
            query: words in the id.
            filter_tags: tags, all of which the model must have, such as `text-generation` or `license:mit`.
            sort: `downloads`, `likes`, `trending` or `updated`, in descending order.
            limit: maximum number of models, 1 to 1,000.

        Raises:
            HubArgumentError: unknown order, or limit out of range.
            AuthenticationFailed: the token is not valid.
        """
        found: Models = self._client.run(self._ask.search(query or "", filter_tags or (), sort, limit))
        return found

    async def asearch_models(
        self, query: str | None = "", filter_tags: Sequence[str] | None = (), sort: str = "downloads", limit: int = 20
    ) -> Models:
        """Async form of `search_models`."""
        found: Models = await self._client.arun(self._ask.search(query or "", filter_tags or (), sort, limit))
        return found

    def get_model_metadata(self, model_id: str, use_cache: bool = True) -> ModelMetadata | None:
        """Return the metadata of a model, from the cache while they are fresh.

        If the Hub cannot be reached, older metadata are returned, and their `stale` says why.

        Args:
            model_id: Hub id.
            use_cache: False to ask the Hub in any case, and never return older metadata.

        Returns:
            The metadata; None if the Hub does not know the model.

        Raises:
            HubArgumentError: a ValueError; not a valid model id. Nothing is sent.
            ConnectFailed, AttemptTimedOut, RateLimited, ServerError: the Hub could not be asked, and nothing is
                cached.
            AuthenticationFailed: the token is not valid.
        """
        found: ModelMetadata | None = self._client.run(self._ask.metadata(model_id, use_cache))
        return found

    async def aget_model_metadata(self, model_id: str, use_cache: bool = True) -> ModelMetadata | None:
        """Async form of `get_model_metadata`."""
        found: ModelMetadata | None = await self._client.arun(self._ask.metadata(model_id, use_cache))
        return found

    def check_license(self, model_id: str) -> License:
        """Return a model's licence, its class, and what it means for publishing; false if the model has no licence.

        Raises ModelNotFound, and the errors of `get_model_metadata`.
        """
        return _license(self._client.run(self._ask.required_metadata(model_id)))

    async def acheck_license(self, model_id: str) -> License:
        """Async form of `check_license`."""
        return _license(await self._client.arun(self._ask.required_metadata(model_id)))

    def check_compatibility(
        self, model_id: str, required_library: str | None = None, context: int | None = None
    ) -> Compatibility:
        """Return whether a model will run here and which targets can serve it, from its metadata and config.json alone.

        Args:
            model_id: Hub id.
            required_library: library that the model must be for, such as `sentence-transformers`.
            context: tokens to estimate the key-value cache for; by default 4,096, or the model's maximum if that is
                less.

        Returns:
            The result; as a condition it is as true as its `ok`.

        Raises:
            ModelNotFound: and the errors of `get_model_metadata`.
        """
        found: Compatibility = self._client.run(self._ask.compatibility(model_id, required_library, context))
        return found

    async def acheck_compatibility(
        self, model_id: str, required_library: str | None = None, context: int | None = None
    ) -> Compatibility:
        """Async form of `check_compatibility`."""
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
        """Download a model's files of one revision; an interrupted download is resumed.

        Args:
            model_id: Hub id.
            revision: branch, tag or commit.
            cache_dir: folder of the cache; by default the cache of all Hugging Face tools.
            formats: formats of the weights; by default safetensors, or else ONNX. Pickles only on
                request.
            include: patterns of paths, instead of the formats.
            code: whether to download Python files too.
            progress: called with (bytes on disk, bytes in total); by default a progress bar if stderr is a terminal.

        Raises:
            HubArgumentError: invalid model id or revision, or a pattern that matches no file.
            ModelNotFound, GatedModel, KeyMissing, AuthenticationFailed: the Hub refused.
            UnsafeFiles: the model has only pickles. Nothing is downloaded.
            NotEnoughSpace: the disk is too small. Nothing is downloaded.
            ConnectFailed, AttemptTimedOut, RateLimited, BadResponse, OSError: the download broke off; a later call
                resumes it.
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
        """Async form of `download_model`, in another thread; if it is cancelled, the thread stops at the next block of bytes."""
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
        """Publish a PEFT adapter (`hf_gateway.hub.publish`), private unless metadata contain `"private": False`.

        Args:
            path: folder of the adapter.
            metadata: `repo_id`, the details for the card, and the options of `publish`.

        Raises:
            NotConnected: a RuntimeError; `connect` was not called.
            FileNotFoundError: the path does not exist.
            HubArgumentError: a ValueError; metadata has no `repo_id`.
        """
        return self._upload(path, metadata, None)

    def _upload(self, path: str | Path, metadata: Mapping[str, Any], stop: threading.Event | None) -> Any:
        if not self._connected:
            raise NotConnected("not connected: call connect(token) first, with a token that has write access")
        folder = Path(path).expanduser()
        if not folder.exists():
            raise FileNotFoundError(f"{folder}: no such file or folder")
        repo_id = metadata.get("repo_id")
        if not isinstance(repo_id, str) or not repo_id:
            raise HubArgumentError("metadata needs 'repo_id', such as 'you/your-adapter'")
        from hf_gateway.hub.publish import publish

        credential = self._client.credential()
        return publish(
            folder, repo_id=repo_id, credential=credential, endpoint=self.endpoint, metadata=metadata, stop=stop
        )

    async def aupload_artifact(self, path: str | Path, metadata: Mapping[str, Any]) -> Any:
        """Async form of `upload_artifact`, in another thread; if it is cancelled, the process that uploads is ended."""
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
        """Async form of `close`, which also closes the connections of this event loop."""
        self._connected, self._account = False, None
        await self._client.aclose()

    def disconnect(self) -> bool:
        """Call `close` and return True."""
        self.close()
        return True

    async def adisconnect(self) -> bool:
        """Call `aclose` and return True."""
        await self.aclose()
        return True

    def __enter__(self) -> Self:
        """Return the connector."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connector."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the connector."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connector."""
        await self.aclose()

    def __repr__(self) -> str:
        """Return the Hub's URL and whether a token is set, never the token."""
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
