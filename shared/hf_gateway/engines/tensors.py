"""Checks that all weights of a loaded model come from its files.

transformers fills a tensor that is missing in the files, or has another shape, with random numbers and continues; it
ignores a tensor that the network does not have. The first gives arbitrary vectors, the second those of another
network.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.engines import quiet_loggers
from hf_gateway.engines.forked import torch_computes
from hf_gateway.errors import EngineFailed, GatewayError
from hf_gateway.spaces.fingerprint import CANARIES
from hf_gateway.values.forks import fork_lock

_SHOWN_NAMES = 3
"""Number of tensor names in an error; the others are counted."""
_COMPUTED = ("position_ids", "inv_freq")
"""Last parts of the names of buffers that a network computes itself, and that older files may contain."""

NetworkOutput = Callable[[], Any]
"""Runs the model on a few texts and returns its outputs; a NaN in any weight that contributes would be visible in
them.
"""


@dataclass(frozen=True)
class Loading:
    """A network that transformers loaded from files."""

    model: Any
    """The network."""
    info: Mapping[str, Any]
    """Result of `output_loading_info`."""


_recording = threading.local()
_patching = fork_lock()


@contextlib.contextmanager
def recorded_loads() -> Iterator[list[Loading]]:
    """Record how transformers loads each network in this thread.

    sentence-transformers and custom code call `from_pretrained` themselves and drop the loading information, so it is
    requested here for every caller. Wrong shapes are then reported by name, too, instead of in an error without
    names.
    """
    from transformers import PreTrainedModel

    found: list[Loading] = []
    original = PreTrainedModel.__dict__["from_pretrained"]

    @functools.wraps(original.__func__)
    def from_pretrained(cls: Any, *arguments: Any, **named: Any) -> Any:
        if getattr(_recording, "found", None) is not found:  # called by another thread
            return original.__func__(cls, *arguments, **named)
        with_info = bool(named.pop("output_loading_info", False))
        settings = named | {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = original.__func__(cls, *arguments, **settings)
        found.append(Loading(model, info))
        if getattr(model, "_hf_peft_config_loaded", False):
            found.extend(_bases(functools.partial(original.__func__, cls), model, arguments[1:], settings))
        return (model, info) if with_info else model

    with _patching:
        PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        _recording.found = found
        try:
            yield found
        finally:
            _recording.found = None
            PreTrainedModel.from_pretrained = original


def _bases(
    load: Callable[..., Any], model: Any, arguments: Sequence[Any], named: Mapping[str, Any]
) -> Iterator[Loading]:
    """Load the base models of adapters again, separately: transformers reports on the adapter alone."""
    named = {name: value for name, value in named.items() if name != "adapter_kwargs"}
    for adapter in model.peft_config.values():
        base, info = load(adapter.base_model_name_or_path, *arguments, **named)
        yield Loading(base, info)


def check_device(name: str) -> None:
    """Raise EngineFailed if torch cannot compute on this device."""
    import torch

    try:
        with torch_computes():
            at_hand = bool(torch.ones(1, device=name).sum().item() == 1)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        # torch raises AssertionError if it was built without support for a device.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EngineFailed(
            f"torch cannot compute on device={name!r} here: {reason}; omit the option device, or install a torch build for it"
        ) from error
    if not at_hand:
        raise EngineFailed(f"torch does not compute on device={name!r}; omit the option device")


def load_sentence_transformer(folder: Path, **settings: Any) -> Any:
    """Load a model with sentence-transformers, from its folder alone and with all its tensors. Raises EngineFailed."""
    import sentence_transformers

    return _load_encoder(sentence_transformers.SentenceTransformer, folder, {}, settings)


def load_sparse_encoder(folder: Path, **settings: Any) -> Any:
    """Load a sparse model with sentence-transformers, as `load_sentence_transformer` does. Raises EngineFailed."""
    import sentence_transformers

    return _load_encoder(sentence_transformers.SparseEncoder, folder, {"convert_to_sparse_tensor": False}, settings)


def _load_encoder(kind: Any, folder: Path, encoding: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Load a model of one of sentence-transformers' classes. encoding: arguments with which it returns dense rows."""
    try:
        with torch_computes(), quiet_loggers(), recorded_loads() as loadings:
            model: Any = kind(str(folder), local_files_only=True, **settings)
            check_tensors(
                loadings,
                folder,
                lambda: [
                    encode(list(CANARIES), prompt="", show_progress_bar=False, **encoding)
                    for encode in (model.encode_query, model.encode_document)
                ],
            )
    except GatewayError:
        raise
    except Exception as error:  # loaders raise various exceptions
        raise EngineFailed(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
    return model


def load_causal_model(folder: Path, device: str, **settings: Any) -> Any:
    """Load a chat model with transformers, with all its tensors.

    Args:
        folder: folder of the model.
        device: device such as "cpu" or "cuda:0".
        settings: arguments of `from_pretrained`.

    Raises:
        EngineFailed: tensors are missing or do not match. Other exceptions of transformers are not converted.
    """
    return _load_network("AutoModelForCausalLM", folder, device, _example_ids, settings)


def load_text_classifier(folder: Path, device: str, **settings: Any) -> Any:
    """Load a model that labels texts with transformers, with all its tensors.

    Args:
        folder: folder of the model.
        device: device such as "cpu" or "cuda:0".
        settings: arguments of `from_pretrained`.

    Raises:
        EngineFailed: tensors are missing or do not match. Other exceptions of transformers are not converted.
    """
    return _load_network("AutoModelForSequenceClassification", folder, device, _example_ids, settings)


def load_image_classifier(folder: Path, device: str, pixels: Callable[[], Any], **settings: Any) -> Any:
    """Load a model that labels images with transformers, with all its tensors.

    Args:
        folder: folder of the model.
        device: device such as "cpu" or "cuda:0".
        pixels: returns the tensor of an example.
        settings: arguments of `from_pretrained`.

    Raises:
        EngineFailed: tensors are missing or do not match. Other exceptions of transformers are not converted.
    """

    def example(model: Any) -> Mapping[str, Any]:
        return {"pixel_values": pixels().to(model.device, model.dtype)}

    return _load_network("AutoModelForImageClassification", folder, device, example, settings)


def _example_ids(model: Any) -> Mapping[str, Any]:
    import torch

    return {"input_ids": torch.arange(8, device=model.device)[None] % int(model.config.get_text_config().vocab_size)}


def _load_network(
    auto_class: str, folder: Path, device: str, example: Callable[[Any], Mapping[str, Any]], settings: Mapping[str, Any]
) -> Any:
    """Load a network by one of transformers' classes that choose by config.json, with all its tensors."""
    import torch
    import transformers

    with torch_computes(), quiet_loggers(), recorded_loads() as loadings:
        model: Any = getattr(transformers, auto_class).from_pretrained(str(folder), **settings)
        model = model.to(device).eval()

        def answers() -> list[Any]:
            with torch.no_grad():
                return [model(**example(model)).logits.float().cpu().numpy()]

        check_tensors(loadings, folder, answers)
    return model


def check_tensors(loadings: Sequence[Loading], folder: Path, answers: NetworkOutput) -> None:
    """Raise EngineFailed, with their names, for tensors that are missing, of another shape, or of another network.

    A missing tensor may belong to a part that does not contribute to the output, such as a pooler: that is tested
    with NaN values, which are left in it.

    Args:
        loadings: what `recorded_loads` collected.
        folder: folder of the model, for the error.
        answers: runs the model.
    """
    unused: list[str] = []
    for loading in loadings:
        if wrong := sorted(loading.info["mismatched_keys"]):
            _, found, wanted = wrong[0]
            raise EngineFailed(
                f"{folder}: the tensor {_name_tensors([name for name, *_ in wrong])} has the shape {tuple(found)}, but by "
                f"config.json it is {tuple(wanted)}; {_REMEDY}"
            )
        foreign = [name for name in sorted(loading.info["unexpected_keys"]) if _belongs_to_model(name, loading.model)]
        missing = [name for name in sorted(loading.info["missing_keys"]) if _is_trained(name, loading.model)]
        # In a layer: an expert may be unused for the texts of the test.
        if foreign or any(part.isdigit() for name in missing for part in name.split(".")):
            raise _load_failure(missing, foreign, folder)
        _fill_with_nan(missing, loading.model)
        unused += missing
    if unused:
        import numpy as np

        if not all(np.isfinite(np.asarray(each, np.float64)).all() for each in answers()):
            raise _load_failure(unused, [], folder)


def _belongs_to_model(name: str, model: Any) -> bool:
    """Return whether an unexpected tensor belongs to the network itself, not to a head for another task."""
    if name.rpartition(".")[2] in _COMPUTED:
        return False
    prefix = f"{model.base_model_prefix}."
    trunk = getattr(model, model.base_model_prefix, model)
    path = name.removeprefix(prefix)
    parts = {child for child, _ in trunk.named_children()}
    return path.partition(".")[0] in parts


def _is_trained(name: str, model: Any) -> bool:
    """Return whether a tensor has trained weights, unlike integer positions or masks, which are computed."""
    return bool(_tensor(name, model).is_floating_point()) and name.rpartition(".")[2] not in _COMPUTED


def _fill_with_nan(names: Sequence[str], model: Any) -> None:
    import torch

    with torch.no_grad():
        for name in names:
            _tensor(name, model).fill_(torch.nan)


def _tensor(name: str, model: Any) -> Any:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last)


def _load_failure(missing: Sequence[str], foreign: Sequence[str], folder: Path) -> EngineFailed:
    faults = []
    if missing:
        faults.append(
            f"the tensor {_name_tensors(missing)} is missing in the files, and would be filled with random numbers"
        )
    if foreign:
        faults.append(f"they have the tensor {_name_tensors(foreign)}, which the network of config.json does not have")
    return EngineFailed(f"{folder}: {', and '.join(faults)}; {_REMEDY}")


_REMEDY = "download the model again, or use the files and the config.json of the same model"


def _name_tensors(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(map(repr, names[:_SHOWN_NAMES])) + (f" and {more} more" if more > 0 else "")
