"""Whether all numbers of a loaded model came out of its files.

transformers fills a tensor that the files lack, or have in another shape, with random numbers and goes on; it leaves out one
for which the network has no place. The first makes vectors of a space of their own, the second those of another network.
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

_SHOWN = 3
"""Names of tensors in an error; of the others it gives the number."""
_COMPUTED = ("position_ids", "inv_freq")
"""Last parts of the names of buffers that a network computes by itself, and that older files may have."""

NetworkOutput = Callable[[], Any]
"""Runs the model on a few texts and returns its outputs, in which a NaN in any weight that takes part would show."""


@dataclass(frozen=True)
class Loading:
    """One network as transformers read it from files. info: what `output_loading_info` gives."""

    model: Any
    info: Mapping[str, Any]


_recording = threading.local()
_patching = fork_lock()


@contextlib.contextmanager
def recorded_loads() -> Iterator[list[Loading]]:
    """Collect how transformers loads each network of this thread meanwhile.

    sentence-transformers and code of repositories call `from_pretrained` by themselves and drop what it can tell, so it is
    asked for here for every caller. Wrong shapes are then reported by name, too, in place of an error without names.
    """
    from transformers import PreTrainedModel

    found: list[Loading] = []
    given = PreTrainedModel.__dict__["from_pretrained"]

    @functools.wraps(given.__func__)
    def from_pretrained(cls: Any, *arguments: Any, **named: Any) -> Any:
        if getattr(_recording, "found", None) is not found:  # another thread's own affair
            return given.__func__(cls, *arguments, **named)
        tells = bool(named.pop("output_loading_info", False))
        settings = named | {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = given.__func__(cls, *arguments, **settings)
        found.append(Loading(model, info))
        if getattr(model, "_hf_peft_config_loaded", False):
            found.extend(_bases(functools.partial(given.__func__, cls), model, arguments[1:], settings))
        return (model, info) if tells else model

    with _patching:
        PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        _recording.found = found
        try:
            yield found
        finally:
            _recording.found = None
            PreTrainedModel.from_pretrained = given


def _bases(
    load: Callable[..., Any], model: Any, arguments: Sequence[Any], named: Mapping[str, Any]
) -> Iterator[Loading]:
    """Load what adapters were put onto once more, by itself: transformers tells of the adapter alone."""
    named = {name: value for name, value in named.items() if name != "adapter_kwargs"}
    for adapter in model.peft_config.values():
        base, info = load(adapter.base_model_name_or_path, *arguments, **named)
        yield Loading(base, info)


def check_device(name: str) -> None:
    """Raise EngineFailed where torch cannot compute on a device of this name here."""
    import torch

    try:
        with torch_computes():
            at_hand = bool(torch.ones(1, device=name).sum().item() == 1)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        # An AssertionError is torch's way to say that it was built without a device.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EngineFailed(
            f"torch cannot compute on device={name!r} here: {reason}; leave the option device out, or install a torch for it"
        ) from error
    if not at_hand:
        raise EngineFailed(f"torch does not compute on device={name!r}; leave the option device out")


def load_sentence_transformer(folder: Path, **settings: Any) -> Any:
    """Load a model with sentence-transformers, from its folder alone and with all its tensors. Raises EngineFailed."""
    import sentence_transformers

    try:
        with torch_computes(), quiet_loggers(), recorded_loads() as loadings:
            model: Any = sentence_transformers.SentenceTransformer(str(folder), local_files_only=True, **settings)
            check_tensors(
                loadings, folder, lambda: [_encode_names(model.encode_query), _encode_names(model.encode_document)]
            )
    except GatewayError:
        raise
    except Exception as error:  # a loader fails in as many ways as there are formats
        raise EngineFailed(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
    return model


def _encode_names(encode: Any) -> Any:
    return encode(list(CANARIES), prompt="", show_progress_bar=False)


def load_causal_model(folder: Path, device: str, **settings: Any) -> Any:
    """Load a model for chats with transformers, with all its tensors. Raises EngineFailed, and whatever transformers does."""
    import torch
    import transformers

    with torch_computes(), quiet_loggers(), recorded_loads() as loadings:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(str(folder), **settings)
        model = model.to(device).eval()

        def answers() -> list[Any]:
            ids = torch.arange(8, device=model.device)[None] % int(model.config.get_text_config().vocab_size)
            with torch.no_grad():
                return [model(input_ids=ids).logits.float().cpu().numpy()]

        check_tensors(loadings, folder, answers)
    return model


def check_tensors(loadings: Sequence[Loading], folder: Path, answers: NetworkOutput) -> None:
    """Raise EngineFailed, with their names, for tensors that are missing, of another shape, or of another network.

    Missing ones may be those of a part that takes no part in the answers, such as a pooler: that is tried, not believed. For
    good measure they stay what no answer can be made of.

    Args:
        loadings: what `recorded` collected.
        folder: the model's, for the error.
        answers: runs the model.
    """
    unused: list[str] = []
    for loading in loadings:
        if wrong := sorted(loading.info["mismatched_keys"]):
            _, found, wanted = wrong[0]
            raise EngineFailed(
                f"{folder}: the tensor {_name_tensors([name for name, *_ in wrong])} has the shape {tuple(found)}, and by "
                f"config.json it is {tuple(wanted)}; {_REMEDY}"
            )
        foreign = [name for name in sorted(loading.info["unexpected_keys"]) if _belongs_to_model(name, loading.model)]
        missing = [name for name in sorted(loading.info["missing_keys"]) if _is_learnt(name, loading.model)]
        # Of a layer: the texts at hand may pass an expert by.
        if foreign or any(part.isdigit() for name in missing for part in name.split(".")):
            raise _load_failure(missing, foreign, folder)
        _spoil(missing, loading.model)
        unused += missing
    if unused:
        import numpy as np

        if not all(np.isfinite(np.asarray(each, np.float64)).all() for each in answers()):
            raise _load_failure(unused, [], folder)


def _belongs_to_model(name: str, model: Any) -> bool:
    """Return whether a tensor without a place belongs to the network itself, and not to a head for another task beside it."""
    if name.rpartition(".")[2] in _COMPUTED:
        return False
    prefix = f"{model.base_model_prefix}."
    trunk = getattr(model, model.base_model_prefix, model)
    path = name.removeprefix(prefix)
    parts = {child for child, _ in trunk.named_children()}
    return path.partition(".")[0] in parts


def _is_learnt(name: str, model: Any) -> bool:
    """Return whether a tensor holds numbers of its own, and not, as whole ones are, places or a mask that are computed."""
    return bool(_tensor(name, model).is_floating_point()) and name.rpartition(".")[2] not in _COMPUTED


def _spoil(names: Sequence[str], model: Any) -> None:
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
            f"the files lack the tensor {_name_tensors(missing)}, in whose place there would be random numbers"
        )
    if foreign:
        faults.append(
            f"they have the tensor {_name_tensors(foreign)}, for which the network of config.json has no place"
        )
    return EngineFailed(f"{folder}: {', and '.join(faults)}; {_REMEDY}")


_REMEDY = "download the model again, or get the files and the config.json of one and the same model"


def _name_tensors(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
