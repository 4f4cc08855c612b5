"""Queries to the Hub, and when the cache answers instead: generators of steps for `hub.client`."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from hf_gateway.chain.effects import Steps
from hf_gateway.errors import BadResponse, GatewayError, InvalidRequest, ModelNotFound
from hf_gateway.hub import cached_files, names, router_catalogue, selection
from hf_gateway.hub import download as downloads
from hf_gateway.hub.cache import CachedModel, ModelCache
from hf_gateway.hub.client import AWAY, HubClient
from hf_gateway.hub.compatibility import Compatibility, check_model
from hf_gateway.hub.download import DownloadPlan
from hf_gateway.hub.errors import HubArgumentError, NoSuchModel
from hf_gateway.hub.machine import this_machine
from hf_gateway.hub.needs import fetched, needs, wants_config
from hf_gateway.hub.selection import Format
from hf_gateway.hub.transfer import check_size
from hf_gateway.settings.config_file import router_url
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.hub_model import ModelFile, ModelMetadata, Models, age_in_words
from hf_gateway.wire import hub_models
from hf_gateway.wire.hf_inference import decode_file, encode_file

MAX_MODELS = 1000
"""Maximum number of models of one search."""
MAX_CONTEXT_TOKENS = 10**9
"""Maximum context; no model supports as many tokens."""
MAX_FILES = 200_000
"""Maximum number of files of one repository; the Hub advises against half as many."""
MAX_PAGES = 2000
"""Maximum number of pages of one list of files."""
_INFO, _PROVIDERS = "model", "providers"
"""Requests whose ETags are stored."""


def check_limit(limit: int) -> None:
    """Raise HubArgumentError if a search's limit is out of range."""
    if not 1 <= limit <= MAX_MODELS:
        raise HubArgumentError(f"limit is 1 to {MAX_MODELS:,}, not {limit}")


class HubQueries:
    """Queries about models, to one Hub, with one cache. Each method is a generator that returns the answer."""

    def __init__(self, client: HubClient, cache: ModelCache, ttl_hours: float) -> None:
        """Set the client and the cache; nothing is sent."""
        self._client = client
        self.cache = cache
        self.ttl_hours = ttl_hours

    def search(self, query: str, filter_tags: Sequence[str], sort: str, limit: int) -> Steps:
        """Search the Hub, or the cache if the Hub cannot be reached.

        Args:
            query: words in the id.
            filter_tags: tags, all of which the model must have.
            sort: `downloads`, `likes`, `trending` or `updated`.
            limit: maximum number of models.

        Returns:
            `Models`.

        Raises:
            HubArgumentError: unknown order, or limit out of range.
        """
        if sort not in hub_models.SORTS:
            raise HubArgumentError(f"unknown order {sort!r}; known are: {', '.join(hub_models.SORTS)}")
        if isinstance(filter_tags, str):
            raise HubArgumentError(f"filter_tags is a list of tags, such as [{filter_tags!r}]")
        check_limit(limit)
        if not all(_is_text(each) for each in (query, *filter_tags)):
            raise HubArgumentError("the words and the tags of a search have to be valid Unicode text")
        found: list[ModelMetadata] = []
        seen: set[str] = set()
        try:
            request: HttpRequest | None = hub_models.encode_list(self._client.endpoint, query, filter_tags, sort, limit)
            while request is not None and request.url not in seen and len(found) < limit:
                seen.add(request.url)
                response: HttpResponse = yield from self._client.ask(request, "search")
                page = hub_models.decode_list(response, self.cache.now())
                found += page
                request = hub_models.next_page(response, request) if page else None
        except AWAY as error:
            cached = yield from self._client.compute(lambda: self.cache.search(query, filter_tags, sort, limit))
            return Models((self._stale(each, error) for each in cached), "cache", str(error))
        del found[limit:]
        yield from self._client.compute(lambda: self.cache.set_many(found))
        return Models(found)

    def required_metadata(self, model_id: str) -> Steps:
        """Return the metadata of a model. Raises ModelNotFound if it does not exist."""
        found: ModelMetadata | None = yield from self.metadata(model_id, True)
        if found is None:
            raise NoSuchModel(
                f"there is no model {model_id!r} on {self._client.endpoint}, or it is private and the token has no access to it",
                target=hub_models.TARGET,
            )
        return found

    def metadata(self, model_id: str, use_cache: bool) -> Steps:
        """Return the metadata of a model: from the cache while they are fresh, from the Hub, or old with the reason.

        Args:
            model_id: Hub id.
            use_cache: False to ask the Hub in any case, and never return old metadata.

        Returns:
            The metadata; None if the model does not exist.
        """
        model = names.model_id(model_id)
        entry: CachedModel | None = yield from self._client.compute(lambda: self.cache.entry(model))
        old = entry.metadata if entry else None
        if use_cache and old is not None and old.complete and not old.is_expired(self.ttl_hours, self.cache.now()):
            return old
        try:
            found, validators = yield from self._refreshed(model, entry if old is not None and old.complete else None)
        except ModelNotFound:
            if old is not None:
                yield from self._client.compute(lambda: self._forget(model))
            return None
        except AWAY as error:
            if old is None or not use_cache:
                raise
            return self._stale(old, error)
        yield from self._client.compute(lambda: self.cache.set(found, validators, asked_for=model))
        return found

    def _refreshed(self, model: str, entry: CachedModel | None) -> Steps:
        """Revalidate an entry: with its ETag, an unchanged answer takes a few bytes."""
        validators = dict(entry.validators) if entry else {}
        now = self.cache.now()
        response: HttpResponse = yield from self._client.ask(
            hub_models.encode_model(self._client.endpoint, model, etag=validators.get(_INFO)), model
        )
        if response.status == 304 and entry is not None:
            found = replace(entry.metadata, cached_at=now)
        else:
            found = hub_models.decode_model(response, now)
            if entry is not None and entry.metadata.sha == found.sha:
                # The commit is the same, so the configuration read from config.json is still valid.
                found = replace(found, config={**entry.metadata.config, **found.config})
            if entry is not None:
                # From the second request, whose answer may be "not modified".
                kept = {name: getattr(entry.metadata, name) for name in ("providers", "trending", "gguf")}
                found = replace(found, **kept)
            validators[_INFO] = response.headers.get("etag", "")
        if any(file.size is None for file in found.files):
            found = yield from self._with_sizes(found)
        try:
            response = yield from self._client.ask(
                hub_models.encode_providers(self._client.endpoint, found.id, etag=validators.get(_PROVIDERS)), model
            )
        except (ModelNotFound, InvalidRequest):  # a mirror that does not support this request
            return found, {name: value for name, value in validators.items() if value and name == _INFO}
        if response.status != 304:
            found = replace(found, **hub_models.decode_providers(response))
            validators[_PROVIDERS] = response.headers.get("etag", "")
        return found, {name: value for name, value in validators.items() if value}

    def _with_sizes(self, found: ModelMetadata) -> Steps:
        """Read the sizes from the tree if the model's answer has none, as with a mirror."""
        try:
            files: tuple[ModelFile, ...] = yield from self._tree(found.id, names.commit(found.sha))
        except (ModelNotFound, InvalidRequest, BadResponse):
            return found
        return replace(found, files=files, size=sum(file.size or 0 for file in files))

    def _forget(self, model: str) -> None:
        with contextlib.suppress(OSError):  # the next call removes it
            self.cache.remove(model)

    def compatibility(self, model_id: str, required_library: str | None, context: int | None) -> Steps:
        """Return whether and how a model can be used on this machine.

        Args:
            model_id: Hub id.
            required_library: library that the model must be for.
            context: tokens to estimate the key-value cache for.

        Returns:
            `Compatibility`.

        Raises:
            HubArgumentError: context out of range.
        """
        if context is not None and not 1 <= context <= MAX_CONTEXT_TOKENS:
            raise HubArgumentError(f"context is a number of tokens, 1 to {MAX_CONTEXT_TOKENS:,}, not {context}")
        found: ModelMetadata = yield from self.required_metadata(model_id)
        if wants_config(found):
            found = yield from self._with_config(found)
        cache_dir = cached_files.default_cache

        def look() -> Compatibility:
            machine = this_machine(cache_dir())
            router = router_catalogue.catalogue_of(router_url(self._client.environment))
            entry = (
                router.cached_entry(found.id) if self._client.offline or found.stale else router.find_entry(found.id)
            )
            needed = needs(found, context)
            here = _downloaded_bytes(found, needed.format, cache_dir())
            return check_model(found, needed, machine, entry, required_library=required_library, here=here)

        return (yield from self._client.compute(look))

    def _with_config(self, found: ModelMetadata) -> Steps:
        """Add config.json, which has the numbers for the key-value cache; without it they stay unknown."""
        if not any(file.path == "config.json" for file in found.files):
            return found
        request = encode_file(self._client.endpoint, found.id, found.sha, "config.json")
        try:
            response: HttpResponse = yield from self._client.ask(request, found.id)
            config = decode_file(response, target=hub_models.TARGET)
        except GatewayError:  # gated, or unreachable: the verdict will be unknown
            return found
        if not isinstance(config, dict):
            return found
        read = replace(found, config={**config, **found.config})
        yield from self._client.compute(lambda: self._keep_config(read))
        return read

    def _keep_config(self, read: ModelMetadata) -> None:
        entry = self.cache.entry(read.id)
        self.cache.set(read, entry.validators if entry else None)

    def plan_download(
        self,
        model_id: str,
        revision: str,
        cache_dir: str | Path | None,
        formats: Sequence[Format] | None,
        include: Sequence[str] | None,
        code: bool,
    ) -> Steps:
        """Choose the files to download: the revision's commit, and the wanted files of it.

        Args:
            model_id: Hub id.
            revision: branch, tag or commit.
            cache_dir: folder of the cache.
            formats: formats of the weights; None for safetensors, or else ONNX.
            include: patterns of paths, instead of the formats.
            code: whether to include Python files.

        Returns:
            `DownloadPlan`.

        Raises:
            UnsafeFiles: the weights exist as pickles or GGUF only.
            HubArgumentError: unknown format, or no matching files.
        """
        model = names.model_id(model_id)
        # A single string is one item: otherwise its letters would be the patterns, and `*` would match any file.
        formats = cast("Sequence[Format]", (formats,)) if isinstance(formats, str) else formats
        include = (include,) if isinstance(include, str) else include
        for kind in formats or ():
            if kind not in selection.FORMATS:
                raise HubArgumentError(f"unknown format {kind!r}; known are: {', '.join(selection.FORMATS)}")

        def choose(files: Sequence[ModelFile]) -> list[ModelFile]:
            named = selection.match_patterns(files, include) if include is not None else None
            chosen = named if named is not None else selection.choose_files(files, formats, code=code)
            if not chosen:
                raise HubArgumentError(f"{model} has no files that match {', '.join(include or ('the defaults',))}")
            if include is None and formats is None and not selection.formats(chosen):
                raise HubArgumentError(
                    f"{model} has no weights in a known format, only {len(files)} other files; to download some of "
                    "them, name them: include=['*.json'] or --include '*.json'"
                )
            return chosen

        order, files = yield from self.choose_files(model, revision, cache_dir, choose, offline=True)
        modular = include is None and "pickle" not in (formats or ()) and formats != ["gguf"]
        return replace(order, left_out=tuple(selection.pickled(files) if modular else ()))

    def choose_files(
        self,
        model_id: str,
        revision: str,
        cache_dir: str | Path | None,
        choose: Callable[[Sequence[ModelFile]], list[ModelFile]],
        *,
        offline: bool,
    ) -> Steps:
        """Return the download plan, and all files of the commit.

        Args:
            model_id: Hub id, current or old.
            revision: branch, tag or commit.
            cache_dir: folder of the cache; None for the cache of all Hugging Face tools.
            choose: picks the wanted files.
            offline: whether a download of this or another tool may be used if the Hub cannot be reached.

        Raises:
            ConnectFailed, AttemptTimedOut, RateLimited, BadResponse: the Hub cannot be reached, and files are missing
                here.
        """
        model, revision = names.model_id(model_id), names.revision_name(revision)
        cache = yield from self._client.compute(lambda: _cache_folder(cache_dir))
        away: GatewayError | None = None
        try:
            name, commit = yield from self._commit(model, revision)
            files: Sequence[ModelFile] = yield from self._tree(name, commit)
        except AWAY as error:
            away = error
            found = yield from self._client.compute(
                lambda: self._recorded_download(model, revision, cache) if offline else None
            )
            if found is None:
                raise
            name, commit, files = found
        chosen = choose(files)
        for file in chosen:
            check_size(file)
        credential = yield from self._client.compute(self._client.credential)
        order = DownloadPlan(name, revision, commit, tuple(chosen), self._client.endpoint, credential, cache)
        if (reason := away) is not None:
            yield from self._client.compute(lambda: downloads.check_whole(order, reason))
        return order, files

    def _commit(self, model: str, revision: str) -> Steps:
        """Return the model's current name and the commit of a revision; a full commit hash needs no request."""
        if names.is_commit(revision):
            entry: CachedModel | None = yield from self._client.compute(lambda: self.cache.entry(model))
            return (entry.metadata.id if entry else model), revision
        response: HttpResponse = yield from self._client.ask(
            hub_models.encode_model(self._client.endpoint, model, revision),
            model if revision == "main" else f"{model}@{revision}",
        )
        found = hub_models.decode_model(response, self.cache.now())
        try:
            names.model_id(found.id)  # which becomes the name of a folder
        except InvalidRequest as error:
            raise BadResponse(f"the Hub returned an invalid model name: {error.message}") from None
        if found.id != model:
            yield from self._client.compute(lambda: self.cache.set_current_name(model, found.id))
        return found.id, names.commit(found.sha)

    def _tree(self, model: str, commit: str) -> Steps:
        """Return the files of a commit, which never change. Raises BadResponse, also for an endless list."""
        known: tuple[ModelFile, ...] | None = yield from self._client.compute(lambda: self.cache.tree(model, commit))
        if known is not None:
            return known
        files: list[ModelFile] = []
        seen: set[str] = set()
        request: HttpRequest | None = hub_models.encode_tree(self._client.endpoint, model, commit)
        while request is not None:
            if request.url in seen:
                raise BadResponse("the pages of the Hub's list of files form a cycle", target=hub_models.TARGET)
            if len(files) > MAX_FILES or len(seen) >= MAX_PAGES:
                raise BadResponse(
                    f"the Hub's list of files is too long: more than {len(files):,} files on {len(seen):,} pages",
                    target=hub_models.TARGET,
                )
            seen.add(request.url)
            response: HttpResponse = yield from self._client.ask(request, model)
            for each in hub_models.decode_tree(response):
                names.file_path(each.path)
                files.append(each)
            request = hub_models.next_page(response, request)
        yield from self._client.compute(lambda: self.cache.set_tree(model, commit, files))
        return tuple(files)

    def _recorded_download(
        self, model: str, revision: str, cache_dir: Path
    ) -> tuple[str, str, tuple[ModelFile, ...]] | None:
        """Return name, commit and files of a revision's last download by this or another tool; None without one."""
        for name in dict.fromkeys((self.cache.current_name(model) or model, model)):
            commit = revision if names.is_commit(revision) else cached_files.recorded_commit(cache_dir, name, revision)
            files = commit and (self.cache.tree(name, commit) or cached_files.files_of_commit(cache_dir, name, commit))
            if commit and files:
                return name, commit, files
        return None

    def _stale(self, old: ModelMetadata, error: GatewayError) -> ModelMetadata:
        age = age_in_words(old.age(self.cache.now()))
        return replace(old, stale=f"{age} old: {error!s}")


def _cache_folder(given: str | Path | None) -> Path:
    return Path(given).expanduser().absolute() if given is not None else cached_files.default_cache()


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _downloaded_bytes(found: ModelMetadata, kind: Format | None, cache_dir: Path) -> int:
    """Return the bytes of a model's download in this format that are on disk already."""
    if found.sha is None or not names.is_commit(found.sha):
        return 0
    snapshot = cached_files.repository(cache_dir, found.id) / "snapshots" / found.sha
    return sum(file.size or 0 for file in fetched(found, kind) if _is_cached(snapshot, file))


def _is_cached(snapshot: Path, file: ModelFile) -> bool:
    try:
        return cached_files.is_whole(snapshot / names.file_path(file.path), file.size)
    except (BadResponse, OSError, ValueError):
        return False
