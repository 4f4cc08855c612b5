"""Reads the structure of a sentence-transformers model from its files, without torch.

Engines that run a graph do the steps before and after it themselves. A model that is not fully understood here is
refused, so that torch runs it instead of a wrong vector being returned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hf_gateway.engines.networks.build import FAMILIES as BUILT_FAMILIES
from hf_gateway.engines.networks.build import build_refusal, settings_refusal
from hf_gateway.engines.saved_space import TRANSFORMER_FILES, poolings, read_space
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.errors import ConfigError, EngineFailed

Mode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

MODES: tuple[Mode, ...] = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

FAMILIES = frozenset({"bert", "mpnet", "distilbert", "roberta", "xlm-roberta", "camembert", "electra"})
"""Model families whose graphs are used without a comparison with the original."""

_COUNTED_FROM_PAD = frozenset({"mpnet", "roberta", "xlm-roberta", "camembert"})
"""Families that number positions from the padding's id plus one."""

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "Sigmoid")

_PLAIN: Mapping[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""Settings of a Transformer module that equal the defaults."""
_READ = frozenset({"max_seq_length", "do_lower_case", "unpad_inputs"})


@dataclass(frozen=True)
class Dense:
    """A layer after the pooling."""

    path: str
    """Folder of the layer among the model's files."""
    activation: str
    """One of ACTIVATIONS."""


@dataclass(frozen=True)
class Layout:
    """Structure of a model: a transformer, a pooling, and further layers."""

    transformer: str
    """Folder of the transformer among the model's files, "" for the top one."""
    family: str
    """`model_type` of its config."""
    hidden: int
    """Values per token vector."""
    pooling: tuple[Mode, ...]
    """Pooling modes, whose results are concatenated."""
    after: tuple[Dense | Literal["normalize"], ...] = ()
    """Layers after the pooling, and "normalize", in order."""
    lowercase: bool = False
    """Whether texts are lowercased (do_lower_case)."""
    pad: int = 0
    """Token id of the padding."""
    positions: int | None = None
    """Maximum tokens that the network has positions for; None without a limit."""
    relative: bool = False
    """Whether positions count by their distance alone, so that a text has the same vectors with padding on either side."""
    cut: int | None = None
    """Number of the first values of a text's vector that are returned; None for all."""
    vocabulary: int | None = None
    """Number of token ids that the network has vectors for; None if its config does not say."""


def read_layout(files: ModelFiles) -> Layout:
    """Read the structure of a model. Raises EngineFailed if it is not supported, ConfigError for broken files."""
    modules = read_json(files.path / "modules.json")
    if modules is None:
        pooling = read_space(lambda name: read_json(files.path / name), "", cut=False).pooling
        return _layout(files.path, "", ("lasttoken" if pooling == "lasttoken" else "mean",), (), {})
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise EngineFailed("its modules.json is not a list of modules")
    parts = [(str(module.get("type", "")), str(module.get("path", ""))) for module in modules]
    for kind, _ in parts:
        if not kind.startswith("sentence_transformers."):
            raise EngineFailed(f"its module {kind!r} is custom code")
    named = [(kind.rpartition(".")[2], path) for kind, path in parts]
    if [kind for kind, _ in named[:2]] != ["Transformer", "Pooling"]:
        raise EngineFailed(
            f"its modules are {', '.join(kind for kind, _ in named)}, not Transformer, Pooling and what follows"
        )
    after = tuple(read_after(files.path, kind, path) for kind, path in named[2:])
    transformer = named[0][1]
    layout = _layout(
        files.path, transformer, _pooling(files.path / named[1][1]), after, _settings(files.path / transformer)
    )
    return replace(layout, cut=read_cut(files.path))


def read_plain_layout(files: ModelFiles) -> Layout:
    """Read the structure of a network at the top of the files, which has no pooling. Raises as `read_layout` does."""
    return _layout(files.path, "", (), (), {})


def is_built(files: ModelFiles) -> bool:
    """Return whether a graph is built of a model's weights, as far as its files on this machine say."""
    try:
        folder = files.path / read_layout(files).transformer
    except (EngineFailed, ConfigError):
        return False
    has_weights = any(folder.glob("*.safetensors"))
    return (build_refusal(folder) if has_weights else settings_refusal(folder)) is None


def _layout(
    folder: Path,
    transformer: str,
    pooling: tuple[Mode, ...],
    after: tuple[Dense | Literal["normalize"], ...],
    settings: Mapping[str, Any],
) -> Layout:
    config = _object(folder / transformer / "config.json")
    family = config.get("model_type")
    known = BUILT_FAMILIES.get(family) if isinstance(family, str) else None
    config = known.standard(config) if known else config
    hidden = config.get("hidden_size") or config.get("dim") or config.get("d_model")
    if not isinstance(family, str) or not isinstance(hidden, int) or isinstance(hidden, bool):
        raise EngineFailed("its config.json has no model_type or no hidden_size")
    if config.get("auto_map") and not (known and known.own_code):
        raise EngineFailed("it needs custom code (auto_map in its config.json)")
    if config.get("quantization_config"):
        raise EngineFailed("its weights are quantised")
    if (folder / transformer / "adapter_config.json").is_file():
        raise EngineFailed("it has an adapter beside its weights, which transformers adds to them")
    named = config.get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    relative = known is not None and known.relative
    causal = config.get("is_decoder") or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
    if causal and not relative:
        raise EngineFailed("it is a causal model, which pads on the left")
    pad = config.get("pad_token_id", 1 if family in _COUNTED_FROM_PAD else 0)
    pad = pad if isinstance(pad, int) and pad >= 0 else 0
    vocabulary = config.get("vocab_size")
    places = config.get("max_position_embeddings")
    if isinstance(places, int) and family in _COUNTED_FROM_PAD:
        places -= pad + 1
    return Layout(
        transformer,
        family,
        hidden,
        pooling,
        after,
        bool(settings.get("do_lower_case")),
        pad,
        places if isinstance(places, int) and places > 0 else None,
        relative,
        vocabulary=vocabulary if isinstance(vocabulary, int) and vocabulary > 0 else None,
    )


def _settings(folder: Path) -> Mapping[str, Any]:
    """Read the Transformer module's own settings; refuse those that would change the vectors."""
    found: Any = next((read for name in TRANSFORMER_FILES if (read := read_json(folder / name))), {})
    if not isinstance(found, dict):
        raise EngineFailed("the settings of its Transformer module are not a JSON object")
    for name, value in found.items():
        if name not in _READ and value not in (None, {}, _PLAIN.get(name)):
            raise EngineFailed(f"its Transformer module has the setting {name!r}")
    return dict(found)


def _pooling(folder: Path) -> tuple[Mode, ...]:
    config = _object(folder / "config.json")
    if config.get("include_prompt") is False:
        raise EngineFailed("its pooling leaves the prompt out")
    modes: list[Any] = poolings(config) or ["mean"]
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise EngineFailed(f"its pooling is {unknown[0]!r}")
    return tuple(modes)


def read_cut(folder: Path) -> int | None:
    """Return to how many of its values a text's vector is cut; None for all. Raises EngineFailed, ConfigError."""
    saved = read_json(folder / "config_sentence_transformers.json") or {}
    cut = saved.get("truncate_dim") if isinstance(saved, dict) else None
    if cut is not None and (type(cut) is not int or cut < 1):
        raise EngineFailed(f"its vectors are cut to truncate_dim={cut!r:.60}, which is not a number of values")
    return cut


def read_after(folder: Path, kind: str, path: str) -> Dense | Literal["normalize"]:
    """Read a module after the pooling.

    Args:
        folder: folder of the model.
        kind: name of sentence-transformers' module.
        path: its folder among the model's files.

    Raises:
        EngineFailed: a module that is not supported here.
        ConfigError: its config.json is broken.
    """
    config = read_json(folder / path / "config.json") or {}
    if not isinstance(config, dict):
        raise EngineFailed(f"the config.json of its module {kind} is not a JSON object")
    ends = {config.get(name) or "sentence_embedding" for name in ("module_input_name", "module_output_name")}
    if kind not in ("Normalize", "Dense") or ends != {"sentence_embedding"}:
        raise EngineFailed(f"its module {kind} is not one of Dense and Normalize on a sentence's vector")
    if kind == "Normalize":
        return "normalize"
    home, _, activation = str(config.get("activation_function", "")).rpartition(".")
    if not home.startswith("torch.") or activation not in ACTIVATIONS or config.get("use_residual"):
        raise EngineFailed(f"its module Dense has the activation {activation!r}, or a residual")
    return Dense(path, activation)


def _object(path: Path) -> Mapping[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise EngineFailed(f"{path} is missing or not a JSON object")
    return found
