"""Tokenises texts with `tokenizers` alone, with the same result as transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hf_gateway.engines.forked import compute_guard
from hf_gateway.engines.layout import Layout
from hf_gateway.engines.sources import read_json
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.values.forks import fork_lock

Part = Literal["longest_first", "only_first"]
"""What of a pair is truncated, in the words of `tokenizers`."""


class Tokenizer:
    """A tokenizer without automatic truncation and padding. Thread-safe."""

    def __init__(self, path: Path, limit: int | None, *, marked: bool = True) -> None:
        """Load a tokenizer.json.

        Args:
            path: the file.
            limit: maximum tokens for `cut`.
            marked: whether `tokens` puts special tokens around a text.

        Raises:
            EngineMissing: the package tokenizers is missing.
            EngineFailed: the file cannot be read.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EngineMissing(
                f"tokenizers is missing or broken here ({error}): pip install 'hf-gateway[local]'"
            ) from None
        try:
            self._whole = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exceptions
            raise EngineFailed(f"{path} cannot be read: {error}") from error
        self._whole.no_truncation()
        self._whole.no_padding()
        self._limit = limit
        self._marked = marked
        self._truncating: dict[Part, Any] = {}
        self._lock = fork_lock()

    def tokens(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Any]:
        """Tokenise n texts or pairs without truncation; each result has `ids`, `type_ids` and a length."""
        with compute_guard.using("tokenizers"):
            found: list[Any] = self._whole.encode_batch_fast(list(texts), add_special_tokens=self._marked)
        return found

    def vocabulary(self) -> Mapping[str, int]:
        """Return all tokens, special ones included, with their ids."""
        found: dict[str, int] = self._whole.get_vocab()
        return found

    def cut(self, text: str | tuple[str, str], part: Part = "longest_first") -> Any:
        """Tokenise a text or a pair, truncated to the limit; the special tokens at its end are kept.

        Args:
            text: the text or the pair.
            part: what of a pair is truncated.
        """
        assert self._limit is not None
        with self._lock:
            if part not in self._truncating:
                # A second tokenizer, since one must not be changed while it is in use.
                made = type(self._whole).from_str(self._whole.to_str())
                made.enable_truncation(self._limit, strategy=part)
                self._truncating[part] = made
        with compute_guard.using("tokenizers"):
            return self._truncating[part].encode_batch_fast([text])[0]


def check_files(folder: Path, layout: Layout) -> Path:
    """Return the model's tokenizer.json, if it agrees with the files beside it.

    transformers also reads tokenizer_config.json; if the two differ, tokenizer.json alone would give other tokens.

    Args:
        folder: folder of the model.
        layout: structure of the model.

    Raises:
        EngineFailed: the files differ, or tokenizer.json is missing.
    """
    found = folder / layout.transformer / "tokenizer.json"
    if not found.is_file():
        raise EngineFailed("it has no tokenizer.json")
    settings = read_json(found.with_name("tokenizer_config.json")) or {}
    if settings.get("padding_side", "right") != "right" and not layout.relative:
        raise EngineFailed("its tokenizer pads on the left")
    if settings.get("truncation_side", "right") != "right":
        raise EngineFailed("its tokenizer cuts long texts on the left")
    normaliser = str((read_json(found) or {}).get("normalizer"))
    lowers = "Lowercase" in normaliser or "'lowercase': True" in normaliser
    wanted = settings.get("do_lower_case")
    if (layout.lowercase and not lowers) or (isinstance(wanted, bool) and wanted != lowers and layout.family in _CASED):
        raise EngineFailed("its tokenizer.json and its settings differ on lower case")
    return found


_CASED = frozenset({"bert", "mpnet", "distilbert", "electra"})
"""Families whose tokenizers have do_lower_case."""
