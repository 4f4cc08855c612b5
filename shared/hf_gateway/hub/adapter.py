"""Checks a local PEFT adapter before it is published, and removes from its configs what belongs to this machine.

Only named files are published: the adapter's config and weights, the tokenizer's files, licence texts. All other
files stay local. The whole folder is checked nevertheless: a pickle, a key or a link suggests that it is the wrong
folder.
"""

import json
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hf_gateway.hub.contents import LocalPaths, Malformed, Tensors, pickle_or_archive, secrets_in, tensors_in
from hf_gateway.hub.errors import HubArgumentError
from hf_gateway.hub.named_keys import settings_with_keys

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PEFT_TYPES = _words("""
    ADALORA ADAMSS ADAPTION_PROMPT BEFT BOFT C3A CARTRIDGE CPT DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LILY
    LN_TUNING LOHA LOKR LORA MISS MULTITASK_PROMPT_TUNING OFT OSF PEANUT POLY PREFIX_TUNING PROMPT_TUNING PSOFT PVERA P_TUNING
    RANDLORA ROAD SHADOW SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT XLORA
""")
"""Adapter types of peft 0.21."""

_VOCABULARIES = _words("added_tokens.json tokenizer.json vocab.json")
_JSON_FILES = _VOCABULARIES | _words("""
    chat_template.json generation_config.json preprocessor_config.json processor_config.json special_tokens_map.json
    tokenizer_config.json
""")
_TERMS = re.compile(r"(?:LICENSE|LICENCE|NOTICE|USE_POLICY)(?:\.md|\.txt)?|chat_template\.jinja")
_TEXT_FILES = re.compile(rf"{_TERMS.pattern}|merges\.txt|vocab\.txt")
_BINARY_FILES = _words("tokenizer.model spiece.model sentencepiece.bpe.model")

_PICKLES = _words("""
    .bin .pt .pth .ckpt .pkl .pickle .dill .joblib .npy .npz .h5 .hdf5 .keras .pt2 .ptl .t7 .mar .nemo .msgpack .zip .tar
""")
_CODE = _words(".py .pyc .so .dll .dylib .exe .sh .bat .ps1 .js .ipynb")
_CHECKPOINT = re.compile(r"checkpoint-\d+|global_step\d+|epoch[-_]\d+")
_TRAINING_STATE = re.compile(r"(?:optimizer|scheduler|scaler|rng_state|random_states|training_args|training_state)\b.*")

# Keys under which configs of tokenizers and adapters keep the path or id that they were loaded from.
_NAMES_OF_MODELS = ("base_model_name_or_path", "tokenizer_name_or_path", "name_or_path", "_name_or_path")
_PATHS_OF_FILES = (
    "tokenizer_file",
    "special_tokens_map_file",
    "vocab_file",
    "merges_file",
    "prompt_tuning_init_state_dict_path",
)
_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
_CACHED = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?[\\/]snapshots[\\/]([0-9a-f]{40})(?:[\\/]|$)", re.ASCII)

MAX_TEXT_BYTES = 64_000_000
MAX_FILES = 10_000


@dataclass(frozen=True)
class Problem:
    """A reason not to publish the adapter."""

    check: str
    """Name of the check that failed."""
    file: str
    """Path relative to the folder, or the name of a setting."""
    message: str
    """What is wrong and what to do about it; continues the file's name."""

    def __str__(self) -> str:
        """Return the problem as one line."""
        return f"{self.file}: {self.message}"


class AdapterRefused(HubArgumentError):
    """The adapter was not published, and nothing was sent.

    Attributes:
        problems: all problems that were found, not only the first.
    """

    def __init__(self, message: str, problems: tuple[Problem, ...] = (), **facts: Any) -> None:
        """List the problems below the message."""
        super().__init__(message + "".join(f"\n  - {problem}" for problem in problems), **facts)
        self.problems = problems


@dataclass(frozen=True)
class AdapterFile:
    """A file to publish."""

    path: str
    """Path in the repository."""
    size: int
    """Size in bytes."""
    content: bytes | None = None
    """New content where the file was changed; None to publish the file on disk."""


@dataclass(frozen=True)
class Adapter:
    """The content of an adapter's folder."""

    folder: Path
    """The folder that was read."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """`adapter_config.json` as it is published."""
    base_model: str | None = None
    """Hub id of the base model; None where no file names one."""
    revision: str | None = None
    """Commit, branch or tag of the base model; None where no file names one."""
    tensors: Tensors | None = None
    """Names, types and sizes of the weights, read from their header; None if they cannot be read."""
    files: tuple[AdapterFile, ...] = ()
    """Files to publish, without the card."""
    readme: str | None = None
    """Text of the folder's README.md, if there is one."""
    left_out: tuple[str, ...] = ()
    """Paths of files that are not published."""
    changed: tuple[str, ...] = ()
    """Changes made to the published files, in words."""
    local_names: tuple[str, ...] = ()
    """Local paths that were found in the files; the card must not contain them either."""
    problems: tuple[Problem, ...] = ()
    """Reasons not to publish the adapter; empty if it can be published."""

    @property
    def peft_type(self) -> str:
        """Type of the adapter, such as LORA."""
        return str(self.config.get("peft_type", ""))

    @property
    def task_type(self) -> str | None:
        """Task that the base model was adapted for, such as CAUSAL_LM; None if the config names none."""
        task = self.config.get("task_type")
        return task if isinstance(task, str) else None


def read_adapter(folder: Path, *, base_model: str | None = None) -> Adapter:
    """Read and check all files of a folder.

    Args:
        folder: the folder that `save_pretrained` wrote.
        base_model: Hub id of the base model, for configs that name a local path or no base model.

    Returns:
        The adapter; all failed checks are in `problems`.

    Raises:
        FileNotFoundError: the folder does not exist.
        NotADirectoryError: the path is not a folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the one that save_pretrained wrote")
    return _AdapterReader(folder, base_model).result()


class _AdapterReader:
    """Collects the content and the problems of one folder."""

    def __init__(self, folder: Path, base_model: str | None) -> None:
        self.folder, self.base_model = folder, base_model
        self.paths = LocalPaths(folder)
        self.revision: str | None = None
        self.config: dict[str, Any] = {}
        self.tensors: Tensors | None = None
        self.readme: str | None = None
        self.files: list[AdapterFile] = []
        self.left_out: list[str] = []
        self.changed: list[str] = []
        self.local_names: list[str] = []
        self.problems: list[Problem] = []

    def result(self) -> Adapter:
        listed = list(self._listed(self.folder, PurePosixPath()))
        # The config first: it names the base model, which other files may refer to by a path.
        for name in sorted(listed, key=lambda name: (name != CONFIG, name)):
            self._add_file(name)
        for name, what in ((CONFIG, "peft's config"), (WEIGHTS, "the adapter's weights as safetensors")):
            if name not in listed:
                self._refuse("missing", name, f"is missing; it is {what}, which save_pretrained writes")
        return Adapter(
            self.folder, self.config, self.base_model, self.revision, self.tensors, tuple(self.files), self.readme,
            tuple(self.left_out), tuple(self.changed), tuple(self.local_names), tuple(self.problems),
        )  # fmt: skip

    def _refuse(self, check: str, name: str, message: str) -> None:
        self.problems.append(Problem(check, name, message))

    def _listed(self, folder: Path, at: PurePosixPath) -> Iterator[str]:
        """Yield the regular files; refuse links, hidden files, checkpoints and special files."""
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if len(found) > MAX_FILES:
            self._refuse("too many", str(at), f"has {len(found):,} files; not an adapter's folder")
            return
        for entry in found:
            name = str(at / entry.name)
            if entry.is_symlink():
                self._refuse("symlink", name, "is a link, which may lead anywhere; put the file itself there")
            elif entry.name.startswith("."):
                self._refuse("dotfile", name, "is hidden, and hidden files hold settings and keys; take it out")
            elif entry.is_dir():
                if _CHECKPOINT.fullmatch(entry.name):
                    self._refuse("checkpoint", name, "is a checkpoint of the training, with its optimizer; take it out")
                else:
                    yield from self._listed(Path(entry.path), at / entry.name)
            elif entry.is_file():
                yield name
            else:
                self._refuse("not a file", name, "is a device, a pipe or a socket")

    def _add_file(self, name: str) -> None:
        path = self.folder / name
        plain = PurePosixPath(name).name
        suffix = PurePosixPath(plain.lower()).suffix
        if _TRAINING_STATE.fullmatch(plain.lower()):
            self._refuse(
                "optimizer", name, "is the state of a training (its optimizer, schedule or arguments); take it out"
            )
        elif suffix in _PICKLES and plain not in _BINARY_FILES:
            self._refuse(
                "pickle", name, f"is of a kind that may run code when it is loaded ({suffix}); safetensors is not"
            )
        elif suffix in _CODE:
            self._refuse("code", name, "is code; an adapter is data")
        elif name != WEIGHTS and (what := pickle_or_archive(_head(path))) is not None:
            self._refuse("pickle", name, f"is {what}, whatever its name says")
        elif name == WEIGHTS:
            self._add_weights(path)
        elif name == CARD:
            self.readme = self._read_text(name)
        elif name == CONFIG or name in _JSON_FILES:
            self._add_json(name)
        elif _TEXT_FILES.fullmatch(name):
            self._add_text(name)
        elif name in _BINARY_FILES:
            self.files.append(AdapterFile(name, path.stat().st_size))
        else:
            self.left_out.append(name)

    def _add_weights(self, path: Path) -> None:
        try:
            tensors = self.tensors = tensors_in(path)
        except Malformed as error:
            self._refuse("safetensors", WEIGHTS, f"cannot be read as safetensors: {error}")
            return
        if not tensors.names:
            self._refuse("safetensors", WEIGHTS, "contains no tensors")
        elif self.config.get("peft_type") in ("LORA", "ADALORA") and not any("lora_" in name for name in tensors.names):
            self._refuse("safetensors", WEIGHTS, "contains no LoRA tensors; are these the weights of a whole model?")
        self._look_for_secrets(WEIGHTS, "\n".join(tensors.metadata.values()))
        self._look_for_named_keys(WEIGHTS, tensors.metadata)
        self._look_for_paths(WEIGHTS, {"__metadata__": tensors.metadata})
        self.files.append(AdapterFile(WEIGHTS, path.stat().st_size))

    def _add_text(self, name: str) -> None:
        text = self._read_text(name)
        if text is None:
            return
        # A vocabulary may contain any text, paths included, none of which comes from this machine.
        for line, path in self.paths.within(text) if _TERMS.fullmatch(name) else ():
            self._refuse("local path", name, f"line {line} contains a local path, {path}; take it out")
        self.files.append(AdapterFile(name, (self.folder / name).stat().st_size))

    def _add_json(self, name: str) -> None:
        text = self._read_text(name)
        if text is None:
            return
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._refuse("config" if name == CONFIG else "not JSON", name, f"is not valid JSON: {error}")
            return
        before = json.dumps(data)
        if isinstance(data, dict) and name not in _VOCABULARIES:
            self._look_for_named_keys(name, data)
            data = self._without_paths(name, data)
        if name == CONFIG:
            self._add_config(data)
        size = (self.folder / name).stat().st_size
        # peft and transformers do not accept JSON that begins with a byte order mark.
        changed = json.dumps(data) != before or _head(self.folder / name).startswith(BOM_UTF8)
        content = (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode() if changed else None
        self.files.append(AdapterFile(name, len(content) if content else size, content))

    def _add_config(self, data: Any) -> None:
        if not isinstance(data, dict):
            self._refuse("config", CONFIG, "is not an object")
            return
        kind = data.get("peft_type")
        if not isinstance(kind, str) or kind not in PEFT_TYPES:
            self._refuse("config", CONFIG, f"has an adapter type that peft does not know: peft_type is {kind!r}")
        self.config = data
        if isinstance(revision := data.get("revision"), str):
            self.revision = revision

    def _without_paths(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Return a config without local paths; a model's local path is replaced with its id."""
        cleaned = dict(data)
        for key in _PATHS_OF_FILES:
            if isinstance(cleaned.get(key), str) and self.paths.first(cleaned[key]):
                self._found_path(name, key, cleaned.pop(key), "taken out")
        for key in _NAMES_OF_MODELS:
            if isinstance(value := cleaned.get(key), str) and value:
                cleaned[key] = self._model_named(name, key, value)
        if name == CONFIG and self.base_model and cleaned.get("base_model_name_or_path") != self.base_model:
            cleaned["base_model_name_or_path"] = self.base_model
            self.changed.append(f"{name}: base_model_name_or_path is {self.base_model} now")
        if name == CONFIG and self.revision and cleaned.get("revision") is None:
            cleaned["revision"] = self.revision
        self._look_for_paths(name, cleaned)
        return cleaned

    def _model_named(self, name: str, key: str, value: str) -> str | None:
        """Return the Hub id of the model that a config names; None for a path of an unknown model."""
        if value == self.base_model:
            return value
        own = name == CONFIG and key == "base_model_name_or_path"
        if found := _CACHED.search(value):
            known = "/".join(part for part in found.groups()[:2] if part)
            self._found_path(name, key, value, f"{known} now")
            if own and self.base_model is None:
                self.base_model, self.revision = known, found[3]
            return known
        if not is_local(value, self.folder):
            if own and self.base_model is None:
                self.base_model = value
            return value
        self._found_path(name, key, value, f"{self.base_model or 'empty'} now")
        return self.base_model

    def _found_path(self, name: str, key: str, value: str, now: str) -> None:
        self.changed.append(f"{name}: {key} was a local path, and is {now}")
        if value not in self.local_names:
            self.local_names.append(value)

    def _read_text(self, name: str) -> str | None:
        """Return a text after a search for keys; None, with a problem noted, if the file is not text."""
        path = self.folder / name
        if path.stat().st_size > MAX_TEXT_BYTES:
            self._refuse("not text", name, f"has more than {MAX_TEXT_BYTES:,} bytes")
            return None
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            self._refuse("not text", name, "is not a text file, although its name says so")
            return None
        self._look_for_secrets(name, text)
        return text

    def _look_for_secrets(self, name: str, text: str) -> None:
        for line, kind in secrets_in(text):
            self._refuse(
                "secret", name, f"line {line} seems to contain {kind}; take it out, and revoke it if it is one"
            )

    def _look_for_named_keys(self, name: str, data: Mapping[str, Any]) -> None:
        for way in dict.fromkeys(settings_with_keys(data)):
            self._refuse("secret", name, f"{way} is a key by its name; take it out, and revoke it if it is one")

    def _look_for_paths(self, name: str, data: Any) -> None:
        for key, value in texts_in(data):
            if found := self.paths.first(value):
                how = "is a local path" if found == value else f"contains a local path, {found}"
                self._refuse("local path", name, f"{key} {how}; take it out")


def is_local(value: str, folder: Path) -> bool:
    """Return whether a model's name is a local path: not a Hub id by its form, or the path of an existing folder.

    Args:
        value: the name that a config has for a model.
        folder: the adapter's folder; relative paths are tried from it, its parent and the working directory.
    """
    if not _ID.fullmatch(value) or "--" in value or ".." in value:
        return True
    # Path.is_dir raises for names that are too long
    return any(os.path.isdir(Path(start) / value) for start in (Path.cwd(), folder, folder.parent))  # noqa: PTH112


def texts_in(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a JSON value, keys included, with the path to it.

    Args:
        value: parsed JSON.
        at: path to the value, such as `a.b[0]`.
    """
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield f"a name in {at}" if at else "a name", str(key)
            yield from texts_in(each, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from texts_in(each, f"{at}[{index}]")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)
