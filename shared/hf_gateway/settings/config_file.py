"""Settings from files and the environment: `hf-gateway.toml`, and the addresses of the router and the Hub.

# hf-gateway.toml: in the working folder, in the user's configuration folder, or where HF_GATEWAY_CONFIG points
[chains.docs]
model = "BAAI/bge-small-en-v1.5"
targets = ["tei:http://tei:8080", "hf", "local"]

[chains.chat]
task = "chat"
model = "meta-llama/Llama-3.1-8B-Instruct"
targets = ["hf:cerebras", "ollama:llama3.1"]

[keys]
require_for_hosted = false
[keys.models]
"meta-llama/Llama-3.1-8B-Instruct" = "required"

[prices."BAAI/bge-reranker-v2-m3"]
task = "rerank"
per_1000_documents = 0.02

# in the user's own file only: where files in working folders may send environment variables
[keys.env]
VLLM_KEY = ["http://vllm:8000"]
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.keys.credentials import HUB, ROUTER, TOKEN_VARIABLES, is_dedicated_endpoint, is_hugging_face
from hf_gateway.keys.policy import KeyPolicyOverrides, read_switch
from hf_gateway.settings.env_keys import EnvKeyRules, allowed_in
from hf_gateway.settings.fields import parse_targets
from hf_gateway.settings.keys import KeysSection
from hf_gateway.settings.problems import Problem, problems_of
from hf_gateway.settings.toml_file import ConfigFile
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.kinds import KeyLevel
from hf_gateway.values.redaction import quoted, shown_url
from hf_gateway.values.target import Target, checked_url, parsed_url

if TYPE_CHECKING:
    from hf_gateway.settings.base import ChainOptions

FILE_NAME = "hf-gateway.toml"
REQUIRE_KEY_VARIABLE = "HUGGINGFACE_REQUIRE_API_KEY"
EXAMPLES: Mapping[str, str] = {
    "chains": "[chains.docs]",
    "keys": "[keys]",
    "ledger": "[ledger]",
    "prices": '[prices."org/model"]',
    "server": "[server]",
}
"""The sections of a file, each with an example of its header."""
DEAD_HOST = "api-inference.huggingface.co"


def config_path(path: str | Path | None = None) -> Path | None:
    """Return the file in force, or None if there is no file; a file that was named must exist."""
    named = path or os.environ.get("HF_GATEWAY_CONFIG")
    if named:
        found = Path(named).expanduser()
        if not found.is_file():
            what = (
                f"is a folder; name the file in it, such as {found / FILE_NAME}" if found.is_dir() else "no such file"
            )
            raise ConfigError(f"{found}: {what}" + ("" if path else " (HF_GATEWAY_CONFIG names it)"))
        return found
    return next((place for place in (Path(FILE_NAME), own_config_path()) if place.is_file()), None)


def own_config_path() -> Path:
    """Return the path of the user's own file, which need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "hf-gateway" / FILE_NAME


def open_config(path: str | Path | None = None) -> ConfigFile | None:
    """Read the file in force, or None if no file exists. Raises ConfigError naming file and line.

    Args:
        path: the file; by default the one in force.
    """
    found = config_path(path)
    return None if found is None else ConfigFile.read(found)


def read_config(path: str | Path | None = None) -> tuple[Path | None, dict[str, Any]]:
    """Parse the file in force; an empty dict if there is no file. Raises ConfigError naming file and line."""
    file = open_config(path)
    if file is None:
        return None, {}
    file.refuse(section_problems(file))
    return file.path, file.data


def section_problems(file: ConfigFile) -> Iterator[Problem]:
    """Yield what is wrong with the sections of a file, without looking into them."""
    for name, value in file.data.items():
        if name not in EXAMPLES:
            yield Problem(
                (name,),
                f"unknown section {quoted(name, 'whose name may be a key')}{did_you_mean(name, list(EXAMPLES))}",
            )
        elif not isinstance(value, dict):
            yield Problem((name,), f"{name} is a section, such as {EXAMPLES[name]}")


def read_chain(name: str, kind: "type[ChainOptions]", path: str | Path | None = None) -> dict[str, Any]:
    """Return `[chains.<name>]`, checked as settings of a class.

    Args:
        name: of the chain.
        kind: the settings class.
        path: the file; by default the one in force.

    Raises:
        ConfigError: with file and line.
    """
    file = open_config(path)
    if file is None:
        raise ConfigError(
            f"there is no {FILE_NAME} here, so there is no chain {name!r}; write one, or give model and targets"
        )
    file.refuse(section_problems(file))
    chains = file.data.get("chains", {})
    if name not in chains:
        raise ConfigError(
            f"{file.path}: there is no [chains.{name}]{did_you_mean(name, set(chains)) if chains else ''}"
        )
    rules = env_key_rules(file, path)
    file.refuse(chain_problems(file, name, kind, rules))
    chain = {setting: value for setting, value in chains[name].items() if setting != "task"}
    if rules is not None and (targets := parse_targets(chain.get("targets"))) is not None:
        chain["targets"] = [rules.without_forbidden_key(target) for target in targets]
    return {"chain": name, **chain, "config": str(file.path.resolve())}


def chain_problems(
    file: ConfigFile, name: str, kind: "type[ChainOptions]", rules: EnvKeyRules | None
) -> Iterator[Problem]:
    """Yield what is wrong with `[chains.<name>]`.

    Args:
        file: the file, which has the chain.
        name: of the chain.
        kind: the class of its settings.
        rules: what the file may read of the environment; None for everything.
    """
    place, table = ("chains", name), file.data["chains"][name]
    if not isinstance(table, dict):
        yield Problem(place, f"{name!r} is a section, [chains.{name}]")
        return
    declared, expected = table.get("task"), kind.task
    if declared not in (None, expected):
        named = quoted(str(declared), "something else")
        yield Problem((*place, "task"), f"the chain {name!r} is for {named}, and was asked for as one for {expected}")
        return
    chain = {setting: value for setting, value in table.items() if setting != "task"}
    found = [problem.below(place) for problem in problems_of(kind, chain, kind.file_names())]
    yield from found
    if rules is not None and not found:
        yield from (problem.below(place) for problem in _forbidden(rules, chain))


def _forbidden(rules: EnvKeyRules, chain: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a file from the working folder may not ask for."""
    targets = parse_targets(chain.get("targets"))
    for number, target in enumerate(targets or ()):
        if target.options.get("trust_remote_code"):
            place = ("targets", number) if isinstance(chain["targets"], list) else ("targets",)
            yield Problem(place, _code_refusal(rules.file))
    if refusal := _api_key_refusal(rules, chain, targets or (Target("hf"),)):
        yield Problem(("api_key",), refusal)
    if refusal := _endpoints_refusal(rules, chain, targets or ()):
        yield Problem(("targets",), refusal)


def env_key_rules(file: ConfigFile, path: str | Path | None = None) -> EnvKeyRules | None:
    """Return what a file may read of the environment; None for one that the user named, and for the user's own.

    Args:
        file: the file in force.
        path: how the user named it, if at all.
    """
    own = own_config_path()
    if path or os.environ.get("HF_GATEWAY_CONFIG") or (own.is_file() and file.path.samefile(own)):
        return None
    allowed: dict[str, Any] = {}
    if own.is_file():
        users = ConfigFile.read(own)
        users.refuse(keys_problems(users))
        allowed = users.data.get("keys", {}).get("env", {})
    return EnvKeyRules(file.path, own, allowed_in(allowed), {"router": router_url(), "hub": hub_url()})


def _code_refusal(file: Path) -> str:
    """Return why a config file from the working folder does not run code of a model's repository."""
    return (
        f"{file.absolute()} was found in the working folder, and wants the code of a model's repository run "
        "(trust_remote_code); a file that you did not name may not do that. If it is right, name the file yourself, with "
        f"HF_GATEWAY_CONFIG={file.absolute()} or --config"
    )


def _api_key_refusal(rules: EnvKeyRules, chain: Mapping[str, Any], targets: Sequence[Target]) -> str | None:
    """Return why an `api_key` from the environment must not be sent to one of the chain's targets."""
    given = chain.get("api_key")
    if not isinstance(given, str) or not given.startswith(("env:", "file:")):
        return None
    keyless = [target for target in targets if target.credential is None]
    return rules.refusal(given.removeprefix("env:"), keyless)


def _endpoints_refusal(rules: EnvKeyRules, chain: Mapping[str, Any], targets: Sequence[Target]) -> str | None:
    """Return why a dedicated endpoint that names no key does not get the Hugging Face token."""
    keyless = [
        target
        for target in targets
        if target.credential is None and target.url is not None and is_dedicated_endpoint(target.url)
    ]
    return None if chain.get("api_key") else rules.refusal(TOKEN_VARIABLES[0], keyless)


def key_policy_overrides(
    path: str | Path | None = None, environment: Mapping[str, str] = os.environ
) -> KeyPolicyOverrides:
    """Return the owner's rules about keys, from HUGGINGFACE_REQUIRE_API_KEY and the config file's `[keys]`.

    Args:
        path: the file; by default the one in force.
        environment: the variables to read.

    Raises:
        ConfigError: the file or the variable is wrong.
    """
    file = open_config(path)
    keys = KeysSection()
    if file is not None:
        file.refuse(section_problems(file))
        file.refuse(keys_problems(file))
        keys = KeysSection.model_validate(file.data.get("keys", {}))
    hosted = read_switch(REQUIRE_KEY_VARIABLE, environment) or keys.require_for_hosted
    return KeyPolicyOverrides(hosted, {model: KeyLevel(level) for model, level in keys.models.items()})


def keys_problems(file: ConfigFile) -> Iterator[Problem]:
    """Yield what is wrong with `[keys]`."""
    keys = file.data.get("keys", {})
    if isinstance(keys, dict):
        found = problems_of(KeysSection, keys, KeysSection.file_names())
        yield from (problem.below(("keys",)) for problem in found)


def router_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the base URL of hosted inference: HUGGINGFACE_BASE_URL, an old-style HF_ENDPOINT, or the router."""
    for name in ("HUGGINGFACE_BASE_URL", "HF_ENDPOINT"):
        value = environment.get(name, "").strip()
        if not value or (name == "HF_ENDPOINT" and not _names_inference(value)):
            continue
        url = base_url(value, f"hf, from {name}")
        if urlsplit(url).hostname == DEAD_HOST:
            notice_once(f"{name} names {DEAD_HOST}, which no longer answers; calling {ROUTER} instead")
            return ROUTER
        if name == "HF_ENDPOINT":
            notice_once(
                "HF_ENDPOINT names an inference server, and means the Hub; set HUGGINGFACE_BASE_URL for inference"
            )
        return url
    return ROUTER


def hub_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the Hub's base URL: HF_ENDPOINT, unless it names an inference server as older guides do."""
    value = environment.get("HF_ENDPOINT", "").strip()
    return base_url(value, "the Hub, from HF_ENDPOINT") if value and not _names_inference(value) else HUB


def base_url(url: str, what: str) -> str:
    """Return a checked base URL, which paths are appended to.

    Args:
        url: the URL.
        what: names it in errors.

    Raises:
        ConfigError: it is invalid, or has a query, to which no path can be appended.
    """
    found = checked_url(url, what)
    if re.search("[?;]", found):
        raise ConfigError(f"target '{what}': {shown_url(url)!r} has a query or parameters ('?…', ';…'); leave them out")
    return found


def _names_inference(url: str) -> bool:
    parts, _ = parsed_url(url)
    if parts is None:
        return False
    host, path = parts.hostname or "", parts.path.rstrip("/")
    return (
        host == DEAD_HOST
        or host.startswith("router.")
        or path.endswith(("/models", "/v1"))
        or (is_hugging_face(url) and host.endswith(".cloud"))
    )
