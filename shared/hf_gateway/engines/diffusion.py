"""diffusers on torch: images by any pipeline from text to image that it can load from safetensors, in this process."""

import contextlib
import inspect
import io
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from hf_gateway.engines import quiet_loggers
from hf_gateway.engines.choosing import DTYPES
from hf_gateway.engines.forked import torch_computes
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.tensors import check_device
from hf_gateway.errors import (
    ConfigError,
    ContentFiltered,
    ContextOverflow,
    EngineFailed,
    EngineMissing,
    GatewayError,
    Unsupported,
)
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.image import GeneratedImage, ImageAnswer, ImageRequest
from hf_gateway.values.usage import Usage

CHOSEN_SEEDS_COUNT = 2**32
"""Seeds are chosen below this, so that they can be given to every library."""


class Engine:
    """A loaded pipeline. Thread-safe: one image is made at a time, others wait."""

    name = "diffusers"

    def __init__(self, files: ModelFiles, options: Mapping[str, Any], *, name: str | None = None) -> None:
        """Load the pipeline.

        Args:
            files: the model's files.
            options: the target's options.
            name: the model's name in answers and errors.

        Raises:
            EngineMissing, EngineFailed: the pipeline cannot be loaded.
            ConfigError: invalid options.
        """
        if options.get("trust_remote_code"):
            raise ConfigError("code in a model's repository is not run for images; omit the option trust_remote_code")
        try:
            import diffusers
            import torch
        except ImportError as error:
            raise EngineMissing(
                f"images in this process need diffusers and torch ({error}): pip install 'hf-gateway[images]'"
            ) from None
        self._name = name or str(files.path)
        self._device = str(options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_device(self._device)
        wanted = str(options.get("dtype") or "auto")
        usual = "float16" if self._device.startswith("cuda") else "float32"
        dtype = getattr(torch, usual if wanted == "auto" else DTYPES.get(wanted, wanted))
        try:
            with _quiet(), quiet_loggers():
                self._pipeline = diffusers.DiffusionPipeline.from_pretrained(
                    str(files.path),
                    dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                ).to(self._device)
        except Exception as error:  # loaders raise various exceptions
            raise EngineFailed(f"{files.path} cannot be loaded: {type(error).__name__}: {error}") from error
        self._parameters = frozenset(inspect.signature(type(self._pipeline).__call__).parameters)
        if not {"prompt", "generator", "output_type"} <= self._parameters or {"image"} & self._required():
            raise EngineFailed(f"{self._name} is a {type(self._pipeline).__name__}, which does not draw from a text")
        self._pipeline.set_progress_bar_config(disable=True)
        self._turn = fork_lock()
        self._process = os.getpid()

    def _required(self) -> set[str]:
        found = inspect.signature(type(self._pipeline).__call__).parameters.values()
        return {each.name for each in found if each.default is inspect.Parameter.empty}

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return self._device

    def draw(self, request: ImageRequest) -> ImageAnswer:
        """Make one image. The same seed makes the same image on the same device and versions.

        Args:
            request: what to draw, one image.

        Raises:
            ContextOverflow: the prompt is longer than the model reads, unless `truncate`.
            Unsupported: the pipeline lacks a parameter that the request has, or refuses its value.
            ContentFiltered: the model's safety checker withheld the image.
            EngineFailed: the pipeline failed.
        """
        arguments = self._arguments(request)
        if not request.truncate:
            self._check_length(request.prompt)
        seed = secrets.randbelow(CHOSEN_SEEDS_COUNT) if request.seed is None else request.seed
        with self._turn, torch_computes(self._device, self._process):
            started = time.perf_counter()
            data = self._draw_one(arguments, seed)
            seconds = time.perf_counter() - started
        return ImageAnswer([GeneratedImage(data, "image/png", seed)], Usage(seconds=seconds), self._name)

    def _arguments(self, request: ImageRequest) -> dict[str, Any]:
        given = {
            "negative_prompt": request.negative_prompt,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if missing := sorted(set(given) - self._parameters):
            raise Unsupported(f"{type(self._pipeline).__name__} has no {', '.join(missing)}")
        return {"prompt": request.prompt, **given}

    def _check_length(self, prompt: str) -> None:
        """Raise ContextOverflow for a prompt that no tokenizer of the pipeline takes whole."""
        tokenizers = [getattr(self._pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")]
        limits = []
        for tokenizer in filter(None, tokenizers):
            limit = getattr(tokenizer, "model_max_length", None)
            if not isinstance(limit, int) or limit > 10**9:
                return
            length = len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
            if length <= limit:
                return
            limits.append((limit, length))
        if limits:
            limit, length = max(limits)
            raise ContextOverflow(
                f"the prompt has {length} tokens, but {self._name} reads {limit}; shorten it, or pass truncate=True",
                limit=limit,
                length=length,
            )

    def _draw_one(self, arguments: dict[str, Any], seed: int) -> bytes:
        import torch

        # On the CPU whatever the device, so that a seed begins with the same noise everywhere.
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            with _quiet():
                made = self._pipeline(**arguments, generator=generator, output_type="pil")
        except GatewayError:
            raise
        except ValueError as error:
            raise Unsupported(f"{self._name} cannot make this image: {error}") from error
        except Exception as error:
            raise EngineFailed(f"{self._name} failed: {type(error).__name__}: {error}") from error
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            raise ContentFiltered("the model's safety checker withheld the image")
        file = io.BytesIO()
        made.images[0].save(file, format="PNG")
        return file.getvalue()


class _Quiet:
    """What the libraries' logs show while no engine works; they have one setting for all threads."""

    lock = fork_lock()
    users = 0
    shown: tuple[int, int, bool]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what diffusers and transformers log: progress, missing extras, and parts of prompts that diffusers truncates."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    with _Quiet.lock:
        if _Quiet.users == 0:
            levels = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
            _Quiet.shown = (*levels, of_diffusers.is_progress_bar_enabled())
            of_diffusers.set_verbosity_error()
            of_transformers.set_verbosity_error()
            of_diffusers.disable_progress_bar()
        _Quiet.users += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.users -= 1
            if _Quiet.users == 0:
                level, of_the_other, bar = _Quiet.shown
                of_diffusers.set_verbosity(level)
                of_transformers.set_verbosity(of_the_other)
                if bar:
                    of_diffusers.enable_progress_bar()
