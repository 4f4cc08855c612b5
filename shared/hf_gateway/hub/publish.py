"""Publishes a PEFT adapter: all checks first, then one commit, private by default.

A commit is atomic: files of any size are uploaded before it, and do not belong to the repository until the commit
refers to them. So an interrupted upload leaves at most an empty private repository, and repeating the call uploads
only what is missing.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hf_gateway.errors import (
    BadResponse,
    GatewayError,
    InvalidRequest,
    KeyMissing,
    ModelNotFound,
    PermissionDenied,
)
from hf_gateway.hub import names
from hf_gateway.hub.adapter import Adapter, read_adapter
from hf_gateway.hub.cache import ModelCache
from hf_gateway.hub.card import Details, license_in
from hf_gateway.hub.client import HubClient
from hf_gateway.hub.errors import HubArgumentError
from hf_gateway.hub.licenses import is_named
from hf_gateway.hub.plan import BaseLicense, PublishPlan, make_plan
from hf_gateway.hub.upload import Progress, Upload
from hf_gateway.keys.credentials import Credential
from hf_gateway.runtime.progress_bar import progress_bar
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.secret import Secret
from hf_gateway.wire.hub_account import decode_whoami, encode_whoami, encode_write_check
from hf_gateway.wire.hub_models import TARGET, decode_model, encode_model


class PublishConflict(GatewayError):
    """Another commit changed the repository meanwhile. Nothing was published; a repeated call starts from its new state."""


@dataclass(frozen=True)
class Published:
    """Result of publishing."""

    plan: PublishPlan
    """What was published, or would be."""
    commit: str | None = None
    """The commit; None for a dry run."""
    url: str | None = None
    """URL of the repository; None for a dry run."""
    created: bool = False
    """Whether the repository was created."""
    already_there: bool = False
    """Whether the repository already had all files unchanged, so that no commit was needed."""
    private: bool = True
    """Whether the repository is private."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "plan": self.plan.to_dict(),
            "commit": self.commit,
            "url": self.url,
            "created": self.created,
            "already_there": self.already_there,
            "private": self.private,
        }


def publish(
    path: str | Path,
    *,
    repo_id: str,
    credential: Credential | Secret | None = None,
    endpoint: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    private: bool | None = None,
    dry_run: bool | None = None,
    license_checked: bool | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Published:
    """Check an adapter's folder and publish it on the Hub in one commit.

    `private`, `dry_run` and `license_checked`, and `public` for the opposite of `private`, may be given in `metadata`
    too; an argument that is not None has priority.

    Args:
        path: the folder that `save_pretrained` wrote.
        repo_id: the repository, with its owner.
        credential: a token; by default the one that is found.
        endpoint: base URL of the Hub; by default HF_ENDPOINT, or huggingface.co.
        metadata: the fields of `card.Details` (license, base_model, datasets, metrics, training, …).
        private: whether a new repository is created as private, True by default. An existing public one is refused
            unless this is False.
        dry_run: whether to run the checks only and send nothing.
        license_checked: whether a person has read a base licence of an unknown class.
        progress: called with (step, bytes sent, bytes in total); by default a progress line if stderr is a terminal.
        stop: set in another thread to end publishing.

    Raises:
        FileNotFoundError, NotADirectoryError: the folder does not exist.
        AdapterRefused, HubArgumentError: the adapter, its licence or the repository's name is not valid; both are
            ValueErrors.
        KeyMissing, AuthenticationFailed, PermissionDenied: there is no token, or it has no write access.
        PublishConflict: the repository was changed by another commit meanwhile.
        AttemptTimedOut: a step made no progress, and the uploading process was ended; the message names the step.
        PublishStopped: `stop` was set.
        ConnectFailed and others: the upload broke off; a repeated call resumes it.
    """
    options = dict(metadata or {})
    private = _private(private, options)
    dry_run = _switch("dry_run", dry_run, options, default=False)
    license_checked = _switch("license_checked", license_checked, options, default=False)
    details = Details.of(options)
    name = names.model_id(repo_id)
    if name != repo_id or "/" not in repo_id:
        raise HubArgumentError(
            f"{repo_id!r} has no owner; write the repository's full name, such as 'ada/{name.split('/')[-1]}'"
        )
    base_model = names.model_id(details.base_model) if details.base_model else None
    adapter = read_adapter(Path(path).expanduser(), base_model=base_model)
    details = replace(details, license=details.license or license_in(adapter.readme))
    client = HubClient(endpoint)
    try:
        secret = _token_for(client, credential)
        if secret is None and not dry_run:
            raise KeyMissing(
                f"publishing needs a token with write access: {names.where_a_token_is_from(client.endpoint, client.environment)}",
                target=TARGET,
            )
        base_license = _base_license(adapter, details, client, dry_run=dry_run)
        unchecked = ["whether the token has write access", "whether the repository exists already, and is public"]
        unchecked += [] if base_license.asked else [f"the licence of {adapter.base_model}"]
        plan = make_plan(
            adapter,
            details,
            repo_id,
            client.endpoint,
            private=private,
            base_license=base_license,
            license_checked=license_checked,
            unchecked=tuple(unchecked) if dry_run else (),
            secret=secret,
        )
        if dry_run:
            return Published(plan, private=private)
        assert secret is not None
        with progress_bar(repo_id, wanted=progress is None) as bar:
            shown = progress if bar is None else lambda step, sent, total: bar(sent, total, step)
            with Upload(client.endpoint, secret, shown, stop) as upload:
                return _Publication(plan, adapter.folder, client, upload).run()
    finally:
        client.close()


def _switch(name: str, given: Any, metadata: dict[str, Any], *, default: bool) -> bool:
    """Remove an option from the metadata; return the argument, or else that option. Raises HubArgumentError for other types."""
    in_metadata = metadata.pop(name, None)
    for value in (given, in_metadata):
        if value is not None and not isinstance(value, bool):
            # Text such as "false" would count as true.
            raise HubArgumentError(f"{name} is true or false, not {value!r}")
    return next((value for value in (given, in_metadata) if value is not None), default)


def _private(given: Any, metadata: dict[str, Any]) -> bool:
    public = _switch("public", None, metadata, default=False) if metadata.get("public") is not None else None
    metadata.pop("public", None)
    if given is None and public is not None and metadata.get("private") is public:
        raise HubArgumentError(f"private and public contradict each other: both are {str(public).lower()}")
    return _switch("private", given, metadata, default=True if public is None else not public)


def _token_for(client: HubClient, credential: Credential | Secret | None) -> Secret | None:
    """Return the token, if it may be sent to this Hub, and set it for the client."""
    if isinstance(credential, Credential):
        if not credential.header_for(client.endpoint):
            raise HubArgumentError(f"the key is bound to {credential.origin}, and is not sent to {client.endpoint}")
        credential = credential.secret
    if credential is not None:
        client.use(credential)
        return credential
    found = client.credential()
    return found.secret if found is not None else None


def _base_license(adapter: Adapter, details: Details, client: HubClient, *, dry_run: bool) -> BaseLicense:
    """Return the base model's licences as the Hub names them; in a dry run, as cached.

    A licence that the caller names is used alone only if the Hub names none; otherwise both apply, so that it cannot
    be overruled.
    """
    base = adapter.base_model
    stated = tuple(each.strip() for each in (details.base_license or "").split(",") if each.strip())
    if base is None:
        return BaseLicense(stated)
    if adapter.problems:
        return BaseLicense((), asked=False)  # the adapter is refused anyway
    if dry_run:
        known = ModelCache(endpoint=client.endpoint).get(base, ttl_hours=None)
        return (
            BaseLicense(stated, asked=False) if known is None else BaseLicense(_merge_licenses(known.license, stated))
        )
    try:
        found = client.run(client.ask(encode_model(client.endpoint, base), base))
    except ModelNotFound:
        return BaseLicense(stated)
    return BaseLicense(_merge_licenses(decode_model(found, datetime.now(UTC)).license, stated))


def _merge_licenses(of_the_hub: tuple[str, ...], stated: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(each for each in of_the_hub if is_named(each))
    return tuple(dict.fromkeys((*named, *stated))) or of_the_hub


class _Publication:
    """Runs a plan: checks write access, creates the repository, commits, and checks the result."""

    def __init__(self, plan: PublishPlan, folder: Path, client: HubClient, upload: Upload) -> None:
        self.plan, self.folder, self.client, self.upload = plan, folder, client, upload
        self.repo_id = plan.repo_id
        self.created = False

    def run(self) -> Published:
        there = self._repository()
        self._may_write(there)
        try:
            if there is None:
                self._call_worker(lambda: self.upload.create(self.repo_id, private=self.plan.private))
                there = self._repository()
                if there is None:
                    raise BadResponse(f"{self.repo_id} was created, but cannot be found", target=TARGET)
                self.created = True
            self._visibility(there)
            return self._commit(there)
        except GatewayError as error:
            failure = error.restated(self._left_behind(error), error.retry_after)
        # A copy, raised outside of the except block: its cause is of no use to the caller.
        raise failure

    def _repository(self) -> ModelMetadata | None:
        """Return the repository's metadata; if it was renamed, its new name is used from here on."""
        try:
            found = self.client.run(self.client.ask(encode_model(self.client.endpoint, self.repo_id), self.repo_id))
        except ModelNotFound:
            return None
        there = decode_model(found, datetime.now(UTC))
        self.repo_id = names.model_id(there.id)
        return there

    def _may_write(self, there: ModelMetadata | None) -> None:
        client = self.client
        if there is not None:
            client.run(client.ask(encode_write_check(client.endpoint, self.repo_id), self.repo_id))
            return
        account = decode_whoami(client.run(client.ask(encode_whoami(client.endpoint), "the token")))
        if account.can_write_to(self.repo_id) is False:
            raise PermissionDenied(
                f"the token of {account.name} has no write access to {self.repo_id} ({'; '.join(account.in_words())}); create "
                "one that has at https://huggingface.co/settings/tokens",
                target=TARGET,
            )

    def _visibility(self, there: ModelMetadata) -> None:
        if self.plan.private and not there.private:
            raise HubArgumentError(
                f"{self.repo_id} is public, but the adapter is to be private: publish it openly (private=False, --public) or "
                "under another name",
                target=TARGET,
            )

    def _commit(self, there: ModelMetadata) -> Published:
        message = "Publish the adapter with hf-gateway"
        done = self._call_worker(
            lambda: self.upload.commit(self.repo_id, self.plan.files, self.folder, there.sha, message)
        )
        commit = names.commit(done)
        self._complete(commit)
        url = f"{self.client.endpoint}/{self.repo_id}"
        plan = replace(self.plan, repo_id=self.repo_id)
        return Published(plan, commit, url, self.created, commit == there.sha, there.private)

    def _complete(self, commit: str) -> None:
        """Check that the commit has all files: a .gitignore in the repository makes the Hub drop files silently."""
        request = encode_model(self.client.endpoint, self.repo_id, commit)
        found = decode_model(self.client.run(self.client.ask(request, self.repo_id)), datetime.now(UTC))
        there = {file.path for file in found.files}
        if missing := [file.path for file in self.plan.files if file.path not in there]:
            raise BadResponse(
                f"commit {commit[:12]} of {self.repo_id} lacks {', '.join(missing)}; is it excluded by a .gitignore there?",
                target=TARGET,
            )

    def _left_behind(self, error: GatewayError) -> str:
        if isinstance(error, PublishConflict | InvalidRequest | PermissionDenied | BadResponse):
            return error.message
        created = f" The repository {self.repo_id} was created and is empty." if self.created else ""
        return (
            f"{error.message}. A commit is atomic, so nothing was published in part.{created} "
            "Publish again: only missing files are sent, and files that are there already are not committed twice"
        )

    def _call_worker(self, call: Callable[[], Any]) -> Any:
        """Call the child process; a repository that was changed meanwhile raises PublishConflict."""
        try:
            return call()
        except GatewayError as error:
            if error.status not in (409, 412):
                raise
            failure = PublishConflict(
                f"{self.repo_id} was changed meanwhile by another commit (HTTP {error.status}); nothing was published. Check its "
                "new state, and publish again",
                target=TARGET,
                status=error.status,
            )
        raise failure
