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
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.keys.credentials import HUB, ROUTER, TOKEN_VARIABLES, is_dedicated_endpoint, is_hugging_face
from hf_gateway.keys.policy import KeyPolicyOverrides, parse_flag
from hf_gateway.settings.env_keys import EnvKeyRules, allowed_in
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.kinds import KeyLevel
from hf_gateway.values.redaction import quoted, shown_url
from hf_gateway.values.target import Target, checked_url, parsed_url

FILE_NAME = "hf-gateway.toml"
_SECTIONS = ("chains", "keys", "prices", "server")
DEAD_HOST = "api-inference.huggingface.co"


def config_path(path: str | Path | None = None) -> Path | None:
    """Return the file in force, or None if there is no file; a file that was named must exist."""
    named = path or os.environ.get("HF_GATEWAY_CONFIG")
    if named:
        found = Path(named).expanduser()
        if not found.is_file():
            raise ConfigError(f"{found}: no such file" + ("" if path else " (HF_GATEWAY_CONFIG names it)"))
        return found
    return next((place for place in (Path(FILE_NAME), own_config_path()) if place.is_file()), None)


def own_config_path() -> Path:
    """Return the path of the user's own file, which need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "hf-gateway" / FILE_NAME


def read_config(path: str | Path | None = None) -> tuple[Path | None, dict[str, Any]]:
    """Parse the file in force; an empty dict if there is no file. Raises ConfigError naming file and line."""
    found = config_path(path)
    if found is None:
        return None, {}
    try:
        text = found.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = where[1] if where else len(text.splitlines())
        raise ConfigError(f"{found}:{line}: not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{found}: cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists within lists
        raise ConfigError(f"{found}: not a configuration: {error}") from None
    for name in data:
        if name not in _SECTIONS:
            raise ConfigError(
                f"{found}:{line_of(text, [], name)}: unknown section {name!r}{did_you_mean(name, list(_SECTIONS))}"
            )
    if not isinstance(data.get("chains", {}), dict):
        raise ConfigError(f"{found}:{line_of(text, [], 'chains')}: chains is a section, such as [chains.docs]")
    return found, data


def read_chain(name: str, kind: type[BaseModel], path: str | Path | None = None) -> dict[str, Any]:
    """Return `[chains.<name>]`, checked as settings of a class.

    Args:
        name: of the chain.
        kind: the settings class.
        path: the file; by default the one in force.

    Raises:
        ConfigError: with file and line.
    """
    found, data = read_config(path)
    if found is None:
        raise ConfigError(
            f"there is no {FILE_NAME} here, so there is no chain {name!r}; write one, or give model and targets"
        )
    text = found.read_text(encoding="utf-8-sig")
    chains = data.get("chains", {})
    if name not in chains:
        raise ConfigError(f"{found}: there is no [chains.{name}]{did_you_mean(name, set(chains)) if chains else ''}")
    chain = chains[name]
    if not isinstance(chain, dict):
        raise ConfigError(f"{found}:{line_of(text, ['chains'], name)}: {name!r} is a section, [chains.{name}]")
    declared, expected = chain.pop("task", None), getattr(kind, "task", None)
    if declared not in (None, expected):
        line = line_of(text, ["chains", name], "task")
        raise ConfigError(
            f"{found}:{line}: the chain {name!r} is for {quoted(str(declared), 'something else')}, "
            f"and was asked for as one for {expected}"
        )
    for setting in chain:
        if setting not in kind.model_fields:
            line = line_of(text, ["chains", name], setting)
            raise ConfigError(
                f"{found}:{line}: unknown setting {setting!r}{did_you_mean(setting, set(kind.model_fields))}"
            )
    rules = None if path or os.environ.get("HF_GATEWAY_CONFIG") else _env_key_rules(found)
    try:
        settings = kind(**chain)
        if rules is not None:
            targets: tuple[Target, ...] | None = getattr(settings, "targets", None)
            if targets is not None:
                _check_code(found, targets)
                chain["targets"] = [rules.without_forbidden_key(target) for target in targets]
            _check_api_key(rules, chain, targets or (Target("hf"),))
            _check_endpoints(rules, chain, targets or ())
    except ValueError as error:  # pydantic's own, for values of the wrong type
        wrong = str(getattr(error, "errors", list)()[0]["loc"][0]) if hasattr(error, "errors") else ""
        said = error.errors()[0]["msg"] if hasattr(error, "errors") else error
        raise ConfigError(f"{found}:{line_of(text, ['chains', name], wrong)}: {wrong}: {said}") from None
    except ConfigError as error:
        raise ConfigError(f"{found}:{line_of(text, ['chains', name], 'targets')}: {error.message}") from None
    return {"chain": name, **chain, "config": str(found.resolve())}


def _env_key_rules(found: Path) -> EnvKeyRules | None:
    """Return the rules for a config file that was only found in the working folder; None for the user's own file."""
    own = own_config_path()
    if own.is_file() and found.samefile(own):
        return None
    _, data = read_config(own) if own.is_file() else (None, {})
    keys = data.get("keys", {})
    if own.is_file():
        _check_keys(own, keys)
    return EnvKeyRules(found, own, allowed_in(keys.get("env", {})), {"router": router_url(), "hub": hub_url()})


def _check_code(found: Path, targets: Sequence[Target]) -> None:
    """Raise ConfigError if a config file from the working folder would run code of a model's repository."""
    if any(target.options.get("trust_remote_code") for target in targets):
        raise ConfigError(
            f"{found.absolute()} was found in the working folder, and wants the code of a model's repository run "
            "(trust_remote_code); a file that you did not name may not do that. If it is right, name the file yourself, with "
            f"HF_GATEWAY_CONFIG={found.absolute()} or --config"
        )


def _check_api_key(rules: EnvKeyRules, chain: Mapping[str, Any], targets: Sequence[Target]) -> None:
    """Raise ConfigError for an `api_key` from the environment that must not be sent to one of the chain's targets."""
    given = chain.get("api_key")
    if isinstance(given, str) and given.startswith("env:"):
        keyless = [target for target in targets if target.credential is None]
        if refusal := rules.refusal(given.removeprefix("env:"), keyless):
            raise ConfigError(refusal)


def _check_endpoints(rules: EnvKeyRules, chain: Mapping[str, Any], targets: Sequence[Target]) -> None:
    """Raise ConfigError for a dedicated endpoint that would get the Hugging Face token without naming a key."""
    keyless = [
        target
        for target in targets
        if target.credential is None and target.url is not None and is_dedicated_endpoint(target.url)
    ]
    if not chain.get("api_key") and (refusal := rules.refusal(TOKEN_VARIABLES[0], keyless)):
        raise ConfigError(refusal)


def line_of(text: str, section: list[str], name: str) -> int:
    """Return the line, counted from 1, of a key or section in a TOML text; its section's line, or 1, if it is not found.

    Args:
        text: the file's content.
        section: the path of the section.
        name: of the key or section.
    """
    header = ".".join(section)
    here, best = not section, 1
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.fullmatch(r"\[+\s*([^\]]+?)\s*\]+\s*(#.*)?", line.strip()):
            title = heading[1].replace('"', "").replace("'", "")
            here = title == header
            if here or (not section and title.split(".")[0] == name):
                best = number
                if not section:
                    return number
        elif here and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
            return number
    return best


def key_policy_overrides(
    path: str | Path | None = None, environment: Mapping[str, str] = os.environ
) -> KeyPolicyOverrides:
    """Return the owner's rules about keys, from HUGGINGFACE_REQUIRE_API_KEY and the config file's `[keys]`.

    Args:
        path: the file; by default the one in force.
        environment: the variables to read.
    """
    found, data = read_config(path)
    keys = data.get("keys", {})
    if found is not None:
        _check_keys(found, keys)
    hosted = parse_flag(environment.get("HUGGINGFACE_REQUIRE_API_KEY", "")) or keys.get("require_for_hosted") is True
    models: dict[str, KeyLevel] = {}
    levels = {level.value: level for level in KeyLevel}
    for model, given in keys.get("models", {}).items():
        if not isinstance(given, str) or given not in levels:
            assert found is not None
            line = line_of(found.read_text(encoding="utf-8-sig"), ["keys", "models"], model)
            named = quoted(str(given), "what was given")
            raise ConfigError(f"{found}:{line}: {named} is not a level; write never, optional or required")
        models[model] = levels[given]
    return KeyPolicyOverrides(hosted, models)


def _check_keys(found: Path, keys: Any) -> None:
    text = found.read_text(encoding="utf-8-sig")
    if not isinstance(keys, dict):
        raise ConfigError(f"{found}:{line_of(text, [], 'keys')}: keys is a section, [keys]")
    kinds = {"require_for_hosted": bool, "models": dict, "env": dict}
    for name, value in keys.items():
        line = line_of(text, ["keys"], name)
        if name not in kinds:
            raise ConfigError(f"{found}:{line}: unknown setting {name!r}{did_you_mean(name, set(kinds))}")
        if not isinstance(value, kinds[name]):
            raise ConfigError(f"{found}:{line}: {name} is {'true or false' if kinds[name] is bool else 'a table'}")
    try:
        allowed_in(keys.get("env", {}))
    except ValueError:
        line = line_of(text, [], "keys.env")
        raise ConfigError(
            f"{found}:{line}: env has, by the name of each variable, the servers it may be sent to, such as "
            '["http://vllm:8000"]'
        ) from None


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
