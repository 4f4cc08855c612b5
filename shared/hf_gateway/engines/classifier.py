"""transformers on torch: labels for texts and for images, in this process, with the scores of transformers' pipelines."""

import io
import os
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.engines import trusts_remote_code
from hf_gateway.engines.batches import batches_by_length
from hf_gateway.engines.choosing import CPU_BATCH_TOKENS, DTYPES, GPU_BATCH_TOKENS
from hf_gateway.engines.forked import compute_guard, torch_computes
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.tensors import check_device, load_image_classifier, load_text_classifier
from hf_gateway.engines.text_labels import Texts, classify_texts, scored
from hf_gateway.engines.tokenising import Part
from hf_gateway.errors import EngineFailed, EngineMissing, GatewayError, InvalidRequest, Unsupported
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.image_type import image_type
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest, Label
from hf_gateway.values.wording import quantity

MAX_PIXELS = 100_000_000
"""Maximum of an image, before it is decoded: more would take gigabytes."""
MAX_BATCH_PIXELS = MAX_PIXELS
"""Maximum of the images that are decoded at the same time."""
MAX_IMAGES = 16
"""Maximum per forward pass."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Formats that Pillow may read."""
_UNLIMITED_TOKENS = 10**9
"""Some tokenizers write 10**30 for "no limit"."""


class Engine:
    """A loaded model for labels of texts or of images, by the architecture in its config.json."""

    name = "transformers"

    def __init__(self, files: ModelFiles, options: Mapping[str, Any], *, revision: str | None = None) -> None:
        """Load the model.

        Args:
            files: the model's files.
            options: the target's options.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded.
            ConfigError: invalid options.
        """
        config = read_json(files.path / "config.json")
        named = config.get("architectures") if isinstance(config, dict) else None
        kinds = [str(name) for name in named] if isinstance(named, list) else []
        images = any(name.endswith("ForImageClassification") for name in kinds)
        self._network: _TextClassifier | _ImageClassifier
        self._network = (_ImageClassifier if images else _TextClassifier)(files, options, revision)

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return self._network.device

    @property
    def context(self) -> int | None:
        """Maximum tokens of a text; None for a model for images, or if its files do not say."""
        return self._network.context

    def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        """Label texts or images.

        Args:
            request: what to label.

        Raises:
            InvalidRequest: an image cannot be decoded, or is too large.
            ContextOverflow: a text is too long, unless `truncate`.
            Unsupported: images for a model for texts, or texts for one for images; or labels of the caller for a model without
                entailment among its own.
            EngineFailed: the model failed.
        """
        return self._network.classify(request)


class _Network:
    """A loaded network. Thread-safe: calls are serialised, since a tokenizer of `tokenizers` must not be borrowed twice."""

    def __init__(self, files: ModelFiles, options: Mapping[str, Any], revision: str | None) -> None:
        try:
            import torch
            import transformers  # noqa: F401 - whether it can be imported
        except ImportError as error:
            raise EngineMissing(
                f"models for labels in this process need torch and transformers ({error}): pip install 'hf-gateway[torch]'"
            ) from None
        trusted = trusts_remote_code(files, options, revision)
        self._device = str(options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_device(self._device)
        wanted = str(options.get("dtype") or ("auto" if self._device.startswith("cuda") else "float32"))
        self._rows = int(options["batch_size"]) if "batch_size" in options else None
        self._lock = fork_lock()
        self._process = os.getpid()
        settings = {"trust_remote_code": trusted, "local_files_only": True}
        try:
            self._model = self._load(files, {**settings, "dtype": DTYPES.get(wanted, wanted)}, settings)
        except GatewayError:
            raise
        except Exception as error:  # loaders raise various exceptions
            raise EngineFailed(f"{files.path} cannot be loaded: {type(error).__name__}: {error}") from error
        found = self._model.config.id2label
        self.labels = [str(found[number]) for number in range(self._model.config.num_labels)]
        self.problem_type: str | None = self._model.config.problem_type

    def _load(self, files: ModelFiles, network: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
        """Load what prepares the inputs, and return the network.

        Args:
            files: the model's files.
            network: arguments of the network's `from_pretrained`.
            common: arguments of any other.
        """
        raise NotImplementedError

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return str(self._model.device)

    def _logits(self, inputs: Mapping[str, Any]) -> list[list[float]]:
        """Run the network; returns the logits of each input."""
        import torch

        try:
            with torch_computes(self._device, self._process), torch.inference_mode():
                moved = {name: each.to(self._model.device) for name, each in inputs.items()}
                rows: list[list[float]] = self._model(**moved).logits.float().cpu().tolist()
        except GatewayError:
            raise
        except Exception as error:  # of torch or the model
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error
        return rows


class _TextClassifier(_Network):
    """A model for labels of texts, or for natural language inference."""

    def _load(self, files: ModelFiles, network: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(files.path), **common)
        model = load_text_classifier(files.path, self._device, use_safetensors=True, **network)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
            model.config.pad_token_id = self._tokenizer.pad_token_id
        self._tokens = GPU_BATCH_TOKENS if self._device.startswith("cuda") else CPU_BATCH_TOKENS
        self.limit = _limit_of(self._tokenizer, model)
        return model

    @property
    def context(self) -> int | None:
        """Maximum tokens of a text, or of a text with the sentence of a label; None if its files do not say."""
        return self.limit

    def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        with self._lock:
            return classify_texts(self, request)

    def tokens(self, texts: Texts) -> list["_Tokens"]:
        """Tokenise n texts or pairs, without truncation."""
        pairs = [(each, None) if isinstance(each, str) else each for each in texts]
        seconds = [second for _, second in pairs]
        with compute_guard.using("tokenizers"):
            found = self._tokenizer(
                [first for first, _ in pairs],
                None if None in seconds else seconds,
                truncation=False,
                verbose=False,
            )
        return [_Tokens({name: each[place] for name, each in found.items()}) for place in range(len(texts))]

    def cut(self, text: str | tuple[str, str], part: Part = "longest_first") -> "_Tokens":
        """Tokenise a text or a pair, truncated to the limit.

        Args:
            text: the text or the pair.
            part: what of a pair is truncated.
        """
        pair = (text, None) if isinstance(text, str) else text
        with compute_guard.using("tokenizers"):
            found = self._tokenizer(*pair, truncation=part, max_length=self.limit, verbose=False)
        return _Tokens({name: list(each) for name, each in found.items()})

    def logits(self, rows: Sequence["_Tokens"]) -> list[list[float]]:
        """Return the logits of n tokenised texts."""
        found: list[list[float]] = [[]] * len(rows)
        for places in batches_by_length([len(row) for row in rows], self._tokens, self._rows):
            padded = self._tokenizer.pad([rows[place].values for place in places], return_tensors="pt")
            for place, logits in zip(places, self._logits(padded), strict=True):
                found[place] = logits
        return found


@dataclass(frozen=True)
class _Tokens:
    """What transformers' tokenizer makes of a text or a pair."""

    values: Mapping[str, list[int]]
    """The ids, and what goes with them, by name."""

    def __len__(self) -> int:
        return len(self.values["input_ids"])


def _limit_of(tokenizer: Any, model: Any) -> int | None:
    """Return the maximum tokens of an input, by the tokenizer and by the network's table of positions."""
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        tables = [each for name, each in model.named_modules() if name.endswith("position_embeddings")]
        # In RoBERTa's family the positions begin after that of the padding.
        padding = next((each.padding_idx for each in tables if getattr(each, "padding_idx", None) is not None), -1)
        limits.append(positions - padding - 1)
    return min(
        (int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < _UNLIMITED_TOKENS), default=None
    )


class _ImageClassifier(_Network):
    """A model for labels of images."""

    context = None

    def _load(self, files: ModelFiles, network: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
        try:
            from PIL import Image
        except ImportError:
            raise EngineMissing("images in this process need Pillow: pip install pillow") from None
        import transformers

        self._images = Image
        self._processor = transformers.AutoImageProcessor.from_pretrained(str(files.path), **common)
        return load_image_classifier(
            files.path,
            self._device,
            lambda: self._pixels([Image.new("RGB", (64, 64), "gray")])["pixel_values"],
            use_safetensors=True,
            **network,
        )

    def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        if not request.images:
            raise Unsupported("labels images, and does not accept texts")
        found: list[list[Label]] = []
        # Decoded a batch at a time: a file of kilobytes may become an image of hundreds of megabytes.
        with self._lock:
            for places in self._batches(request.images):
                pixels = self._pixels([self._opened(request.images, place, _in_colours) for place in places])
                moved = {name: each.to(self._model.dtype) for name, each in pixels.items()}
                logits = self._logits(moved)
                found += [scored(self.labels, self.problem_type, each, request.scale) for each in logits]
        return ClassifyAnswer(found)

    def _pixels(self, images: Sequence[Any]) -> Any:
        return self._processor(images=list(images), return_tensors="pt")

    def _batches(self, images: Sequence[bytes]) -> list[list[int]]:
        """Return the indexes of the images of each forward pass, by their count and their sizes."""
        batches: list[list[int]] = []
        pixels = 0
        for place in range(len(images)):
            size: int = self._opened(images, place, _pixel_count)
            if not batches or len(batches[-1]) == (self._rows or MAX_IMAGES) or pixels + size > MAX_BATCH_PIXELS:
                batches.append([])
                pixels = 0
            batches[-1].append(place)
            pixels += size
        return batches

    def _opened(self, images: Sequence[bytes], place: int, read: Callable[[Any], Any]) -> Any:
        """Return what is read from an image that Pillow has opened.

        Args:
            images: all images.
            place: index of the image.
            read: reads it.

        Raises:
            InvalidRequest: it cannot be decoded, or is too large.
        """
        image = images[place]
        kind = f"{image_type(image)}, {quantity(len(image), 'byte')}"
        what = f"input {place} of {len(images)} ({kind})"
        try:
            # Pillow warns from a size on that is below the limit here. The filters are the process's: hold the lock.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self._images.DecompressionBombWarning)
                with self._images.open(io.BytesIO(image), formats=_FORMATS) as opened:
                    width, height = opened.size
                    if width * height > MAX_PIXELS:
                        raise InvalidRequest(
                            f"{what} has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}", place=place
                        )
                    return read(opened)
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, self._images.DecompressionBombError) as error:
            raise InvalidRequest(f"{what} cannot be decoded: {type(error).__name__}", place=place) from None


def _pixel_count(image: Any) -> int:
    """Return the number of pixels, which the header of the file states."""
    return int(image.width * image.height)


def _in_colours(image: Any) -> Any:
    """Return the decoded image."""
    return image.convert("RGB")
