"""Publish a PEFT adapter: every check first, then one commit, private unless said otherwise.

A commit is all or nothing: files of any size are sent before it, and belong to nobody until the commit names them. So what breaks
off leaves at most an empty private repository, and the same call again sends what is missing and no more.
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
from hf_gateway.hub.licenses import names_one
from hf_gateway.hub.plan import BaseLicense, PublishPlan, make_plan
from hf_gateway.hub.upload import Progress, Upload
from hf_gateway.keys.credentials import Credential
from hf_gateway.runtime.progress_bar import progress_bar
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.secret import Secret
from hf_gateway.wire.hub_account import decode_whoami, encode_whoami, encode_write_check
from hf_gateway.wire.hub_models import TARGET, decode_model, encode_model


class PublishConflict(GatewayError):
    """Somebody else changed the repository meanwhile. Nothing of ours is in it; the same call again starts from what is there."""


@dataclass(frozen=True)
class Published:
    """What was done.

    commit, url: None for a dry run. created: the repository was made for this. already_there: every file stood there already as
    it is, so there was nothing to commit. private: as the repository is now.
    """

    plan: PublishPlan
    commit: str | None = None
    url: str | None = None
    created: bool = False
    already_there: bool = False
    private: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
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
    """Check an adapter's folder and send it to the Hub in one commit.

    metadata: as `card.Details` has it (license, base_model, datasets, metrics, training, …). private: how the repository is made
    if there is none, True by default; one that is public already is refused unless private=False. dry_run: say what would be
    sent, send nothing. license_checked: a person has read the base model's licence, whose class is not known. These three, and
    `public` for the contrary of the first, may stand in metadata too; None is as if it were not given, an argument wins.
    progress: is told (step, bytes sent, bytes in all); by default a line where stderr is a terminal. stop: set from another
    thread, it ends publishing.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        AdapterRefused, HubArgumentError: the adapter, its licence or the repository's name does not do; each a ValueError.
        KeyMissing, AuthenticationFailed, PermissionDenied: there is no token, or it may not write there.
        PublishConflict: somebody else committed meanwhile.
        AttemptTimedOut: a step got nowhere, and the process that sends was ended; the message names the step.
        PublishStopped: `stop` was set.
        ConnectFailed and others: the upload broke off; the same call again goes on.
    """
    said = dict(metadata or {})
    private = _private(private, said)
    dry_run = _switch("dry_run", dry_run, said, default=False)
    license_checked = _switch("license_checked", license_checked, said, default=False)
    details = Details.of(said)
    name = names.model_id(repo_id)
    if name != repo_id or "/" not in repo_id:
        raise HubArgumentError(
            f"{repo_id!r} has no owner; write the repository's whole name, such as 'ada/{name.split('/')[-1]}'"
        )
    base_model = names.model_id(details.base_model) if details.base_model else None
    adapter = read_adapter(Path(path).expanduser(), base_model=base_model)
    details = replace(details, license=details.license or license_in(adapter.readme))
    client = HubClient(endpoint)
    try:
        secret = _token_for(client, credential)
        if secret is None and not dry_run:
            raise KeyMissing(
                f"publishing needs a token that may write: {names.where_a_token_is_from(client.endpoint, client.environment)}",
                target=TARGET,
            )
        base_license = _base_license(adapter, details, client, dry_run=dry_run)
        unchecked = ["whether the token may write there", "whether the repository is there already, and public"]
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
    """Take a switch out of metadata, and return it, or the argument, which wins. Raises HubArgumentError for no boolean."""
    in_metadata = metadata.pop(name, None)
    for value in (given, in_metadata):
        if value is not None and not isinstance(value, bool):
            # Whatever is truthy elsewhere, "false" would be here.
            raise HubArgumentError(f"{name} is true or false, not {value!r}")
    return next((value for value in (given, in_metadata) if value is not None), default)


def _private(given: Any, metadata: dict[str, Any]) -> bool:
    public = _switch("public", None, metadata, default=False) if metadata.get("public") is not None else None
    metadata.pop("public", None)
    if given is None and public is not None and metadata.get("private") is public:
        raise HubArgumentError(f"private and public contradict each other: both are {str(public).lower()}")
    return _switch("private", given, metadata, default=True if public is None else not public)


def _token_for(client: HubClient, credential: Credential | Secret | None) -> Secret | None:
    """Return the token to use, if it may go to this Hub, and have the client ask with it."""
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
    """Find out the base model's licence: as the Hub says; in a dry run as it said some time.

    What the caller says of it counts where the Hub names none; where it names one, both hold, so nobody can talk it away.
    """
    base = adapter.base_model
    said = tuple(each.strip() for each in (details.base_license or "").split(",") if each.strip())
    if base is None:
        return BaseLicense(said)
    if adapter.problems:
        return BaseLicense((), asked=False)  # it does not go out anyway
    if dry_run:
        known = ModelCache(endpoint=client.endpoint).get(base, ttl_hours=None)
        return BaseLicense(said, asked=False) if known is None else BaseLicense(_merge_licenses(known.license, said))
    try:
        found = client.run(client.ask(encode_model(client.endpoint, base), base))
    except ModelNotFound:
        return BaseLicense(said)
    return BaseLicense(_merge_licenses(decode_model(found, datetime.now(UTC)).license, said))


def _merge_licenses(of_the_hub: tuple[str, ...], said: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(each for each in of_the_hub if names_one(each))
    return tuple(dict.fromkeys((*named, *said))) or of_the_hub


class _Publication:
    """One plan on its way: who may write, the repository, the commit, and a look at what is there then."""

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
                    raise BadResponse(f"{self.repo_id} was made, and is not there", target=TARGET)
                self.created = True
            self._visibility(there)
            return self._commit(there)
        except GatewayError as error:
            failure = error.restated(self._left_behind(error), error.retry_after)
        # A copy, and outside of the except block: what it was raised from does not concern the caller.
        raise failure

    def _repository(self) -> ModelMetadata | None:
        """Ask for the repository; one that was moved answers with its new name, which is the one to use from here on."""
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
                f"the token of {account.name} may not write to {self.repo_id} ({'; '.join(account.in_words())}); make one that "
                "may at https://huggingface.co/settings/tokens",
                target=TARGET,
            )

    def _visibility(self, there: ModelMetadata) -> None:
        if self.plan.private and not there.private:
            raise HubArgumentError(
                f"{self.repo_id} is public, and the adapter was to be private: publish it openly (private=False, --public) or "
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
        """Look whether everything is there: a .gitignore in the repository makes the Hub leave files out without a word."""
        asked = encode_model(self.client.endpoint, self.repo_id, commit)
        found = decode_model(self.client.run(self.client.ask(asked, self.repo_id)), datetime.now(UTC))
        there = {file.path for file in found.files}
        if missing := [file.path for file in self.plan.files if file.path not in there]:
            raise BadResponse(
                f"commit {commit[:12]} of {self.repo_id} is without {', '.join(missing)}; does a .gitignore there leave it out?",
                target=TARGET,
            )

    def _left_behind(self, error: GatewayError) -> str:
        said = error.message
        if isinstance(error, PublishConflict | InvalidRequest | PermissionDenied | BadResponse):
            return said
        made = f" The repository {self.repo_id} was made and is empty." if self.created else ""
        return (
            f"{said}. A commit is all or nothing, so nothing is half published.{made} "
            "Publish again: only what is missing is sent, and what is there already is not committed twice"
        )

    def _call_worker(self, call: Callable[[], Any]) -> Any:
        """Have the child process do something; a repository that changed meanwhile is a conflict."""
        try:
            return call()
        except GatewayError as error:
            if error.status not in (409, 412):
                raise
            failure = PublishConflict(
                f"somebody else changed {self.repo_id} meanwhile (HTTP {error.status}); nothing was published. Look at what is "
                "there, and publish again",
                target=TARGET,
                status=error.status,
            )
        raise failure
