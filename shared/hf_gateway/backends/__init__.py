"""Backends: one small file per kind, found by the entry-point group `hf_gateway.backends`. Ours are registered the same way.

A package adds a kind with

    [project.entry-points."hf_gateway.backends"]
    mykind = "my_package:MyServer"

where MyServer is a `Server`: the target's URL, its key, a class for each task that it can do, and the facts of the kind, which
every part of hf-gateway goes by.

    from hf_gateway.backends import EmbeddingAbility, Kind, ProbeReport, Server
    from hf_gateway.values.embedding import EmbedAnswer

    class MyEmbedding(EmbeddingAbility):
        def embed(self, request):
            response = yield from self.ask(...)
            return EmbedAnswer(...)

        def probe(self):
            ...
            return ProbeReport(["my-model"])

    class MyServer(Server):
        kind = Kind("mykind", argument="url", hosted=True)
        abilities = {"embedding": MyEmbedding}
"""

import contextlib
import os
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TypeVar

from hf_gateway.backends.base import Ability, ProbeReport, Server
from hf_gateway.backends.chat import ChatAbility, emit_content
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.keys.policy import KeyPolicyOverrides
from hf_gateway.settings.base import ChainOptions
from hf_gateway.values.kinds import KeyLevel, KeyRequirement, Kind, registered
from hf_gateway.values.redaction import quoted
from hf_gateway.values.secret import Secret
from hf_gateway.values.target import Target

__all__ = [
    "Ability",
    "ChatAbility",
    "EmbeddingAbility",
    "KeyLevel",
    "KeyRequirement",
    "Kind",
    "ProbeReport",
    "Server",
    "emit_content",
    "open_ability",
    "server_class",
]

_URL_ADVICE = (
    "a URL follows the kind of its server: 'openai:<url>' for OpenAI's routes (vLLM, TGI, llama.cpp, LM Studio and others), "
    "'tei:<url>' for text-embeddings-inference, 'endpoint:<url>' for a dedicated Inference Endpoint"
)
_OPENAI_ADVICE = "it has OpenAI's routes: write 'openai:<url>'"
_LOCAL_ADVICE = "a model in this process is 'local'"
_HF_ADVICE = "the hosted providers are 'hf', or 'hf:<provider>'"
_INSTEAD: Mapping[str, str] = {
    "http": _URL_ADVICE,
    "https": _URL_ADVICE,
    **dict.fromkeys(
        ("infinity", "litellm", "llamacpp", "lmstudio", "openrouter", "sglang", "tgi", "vllm"), _OPENAI_ADVICE
    ),
    **dict.fromkeys(("sentencetransformers", "transformers", "torch", "onnx", "openvino"), _LOCAL_ADVICE),
    **dict.fromkeys(("huggingface", "hfinference", "inferenceproviders"), _HF_ADVICE),
}
"""Names that are taken for kinds, in lower case and without signs: what to write instead."""

AbilityType = TypeVar("AbilityType", bound=Ability)


def server_class(kind: str) -> type[Server]:
    """Load the class of a kind. Raises ConfigError, naming the nearest kind, for one that is not registered."""
    kinds = registered()
    if kind not in kinds:
        name = kind.lower().replace("-", "").replace("_", "").replace(".", "")
        advice = f"; {_INSTEAD[name]}" if name in _INSTEAD else did_you_mean(kind, set(kinds))
        raise ConfigError(f"there is no kind of target {quoted(kind, 'as was given')}{advice}")
    loaded: type[Server] = kinds[kind].load()
    return loaded


def open_ability(
    base: type[AbilityType],
    target: Target,
    options: ChainOptions,
    *,
    given_key: Secret | None = None,
    rules: KeyPolicyOverrides = KeyPolicyOverrides(),
    environment: Mapping[str, str] = os.environ,
) -> AbilityType:
    """Build a target's server and its ability for the task of the settings.

    Args:
        base: the class that the ability must be derived from, such as `EmbeddingAbility`.
        target: the target, with the chain's model if it names none.
        options: the settings of the chain.
        given_key: the key of the class, if it is meant for this target.
        rules: the owner's rules about keys.
        environment: where keys and addresses are read from.

    Raises:
        ConfigError: an unknown kind, a kind that does not support the task, or invalid options.
    """
    kind = server_class(target.kind)
    ability = kind.abilities.get(options.task)
    if ability is None:
        raise ConfigError(
            f"target {target.label!r} does not support {options.task}; it is for {', '.join(kind.abilities)}. Kinds of target "
            f"for {options.task}: {', '.join(_kinds_for(options.task)) or 'none is installed'}"
        )
    if isinstance(ability, str):
        ability = resolve_name(ability)
    made = ability(kind(target, given_key=given_key, rules=rules, environment=environment), options)
    if not isinstance(made, base):
        raise ConfigError(f"what {kind.__name__} has for {options.task} is not derived from {base.__name__}")
    return made


def _kinds_for(task: str) -> list[str]:
    """Return the installed kinds that support a task, sorted."""
    found = []
    for kind in sorted(registered()):
        with contextlib.suppress(
            Exception
        ):  # another package's class that cannot be imported is not what is reported here
            if server_class(kind).abilities.get(task) is not None:
                found.append(kind)
    return found
