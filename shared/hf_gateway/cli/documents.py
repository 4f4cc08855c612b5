"""Documents for `hf-gateway quickstart` and `hf-gateway index`: files as text. What cannot be read is skipped and named."""

import codecs
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hf_gateway.errors import visible

T = TypeVar("T")

SUFFIXES = (".txt", ".md", ".rst", ".html", ".htm", ".pdf")
MIN_GUESSED_BYTES = 32
"""Bytes of a text from which its encoding is guessed; a shorter one tells too little."""
FALLBACK_ENCODING = "windows-1252"
"""How a text is read that is not UTF-8 and too short to tell, as browsers do."""

# UTF-32 first: its mark begins as that of UTF-16 does.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Document:
    """A file's text, or a page's."""

    source: str
    """Path of the file."""
    text: str
    """What is written there; never blank."""


@dataclass
class DocumentReader:
    """Reads a file, or the files of a folder in order of their names, and keeps account of what it could not read.

    Raises ImportError with the `pip install` line where a library for PDF or HTML is missing.
    """

    path: Path | None
    """A file or a folder; None for Python's own language reference."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Path, or path and page, to the reason why its text is missing."""
    guessed: dict[str, str] = field(default_factory=dict)
    """Path to the encoding that was assumed, for texts that are not UTF-8 and do not say what they are."""

    def documents(self) -> list[Document]:
        """Return all documents that have text."""
        if self.path is None:
            from pydoc_data.topics import topics

            return [Document(name, text) for name, text in topics.items()]
        return [document for file in self._files(self.path) for document in self._read(file)]

    def account(self) -> Iterator[str]:
        """Yield a line for each text that is missing, or may be read wrongly, and a count where there are several."""
        for name, reason in self.skipped.items():
            yield f"skipped: {visible(name)}: {visible(reason)}"
        if len(self.skipped) > 1:
            yield f"skipped: {len(self.skipped)} in all"
        for name, encoding in self.guessed.items():
            yield f"read as {encoding}, since it is not UTF-8: {visible(name)}"

    def _files(self, path: Path) -> Iterator[Path]:
        if path.is_file():
            yield path
            return
        found = [Path(folder, name) for folder, _, names in os.walk(path, onerror=self._skip_folder) for name in names]
        for file in sorted(found):
            if file.suffix.lower() not in SUFFIXES:
                continue
            if file.is_file():
                yield file
            else:
                self.skipped[str(file)] = "a link to nothing" if file.is_symlink() else "not a regular file"

    def _skip_folder(self, error: OSError) -> None:
        self.skipped[str(error.filename)] = f"cannot be read: {error.strerror}"

    def _read(self, file: Path) -> Iterator[Document]:
        name = str(file)
        try:
            data = file.read_bytes()
        except OSError as error:
            self.skipped[name] = f"cannot be read: {error.strerror}"
            return
        suffix = file.suffix.lower()
        try:
            if suffix == ".pdf":
                texts = self._pages(name, data)
            elif suffix in (".html", ".htm"):
                texts = [_html_text(data)]
            else:
                texts = [self._decoded(name, data)]
        except ModuleNotFoundError as error:
            raise ImportError(f"reading {file.name} needs {error.name}: pip install 'hf-gateway[loaders]'") from None
        except UnreadableError as error:
            self.skipped[name] = str(error)
            return
        found = [Document(name, text) for text in texts if text.strip()]
        if not found and name not in self.skipped:
            self.skipped[name] = "no text in it" + (" (a scan?)" if suffix == ".pdf" else "")
        yield from found

    def _pages(self, name: str, data: bytes) -> list[str]:
        """Return the text of each page that can be read."""
        import io
        import logging

        from pypdf import PdfReader

        logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what matters of it is said once, by name
        reader = _parse_foreign(lambda: PdfReader(io.BytesIO(data)), "not a PDF that can be read")
        if reader.is_encrypted and not _parse_foreign(lambda: reader.decrypt(""), "encrypted"):
            raise UnreadableError("encrypted: it opens with a password only")
        count = _parse_foreign(lambda: len(reader.pages), "not a PDF that can be read")
        texts = []
        for number in range(count):
            try:
                texts.append(_parse_foreign(lambda: reader.pages[number].extract_text(), "cannot be read"))  # noqa: B023 - at once
            except UnreadableError as error:
                self.skipped[f"{name}, page {number + 1}"] = str(error)
        return texts

    def _decoded(self, name: str, data: bytes) -> str:
        """Return a text file's text: by its byte order mark, as UTF-8, or as what it most looks like, which is noted."""
        marked = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
        try:
            text = data.decode(marked or "utf-8")
        except UnicodeDecodeError:
            if marked is not None:
                raise UnreadableError(f"not valid {marked.upper()}, though it begins as such") from None
            encoding = _guessed_encoding(data)
            text = data.decode(encoding, "replace")
            self.guessed[name] = encoding
        if "\0" in text and marked is None:
            encoding = _guessed_encoding(data)
            text = data.decode(encoding, "replace")
            if "\0" in text:
                self.guessed.pop(name, None)
                raise UnreadableError("binary, not text")
            self.guessed[name] = encoding
        return text


class UnreadableError(Exception):
    """A file that holds no text that can be read; says why."""


def _parse_foreign(read: Callable[[], T], what: str) -> T:
    """Return what a parser of foreign files reads. Raises UnreadableError for anything that it raises."""
    try:
        return read()
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - spoilt files make it raise errors of every class
        words = " ".join(str(error).split())
        raise UnreadableError(f"{what}: {words or type(error).__name__}") from None


def _html_text(data: bytes) -> str:
    from bs4 import BeautifulSoup

    return _parse_foreign(lambda: BeautifulSoup(data, "html.parser").get_text(" "), "cannot be read as HTML")


def _guessed_encoding(data: bytes) -> str:
    """Return what a text that is not UTF-8 most looks like."""
    if len(data) >= MIN_GUESSED_BYTES:
        from charset_normalizer import from_bytes

        if (best := from_bytes(data).best()) is not None:
            return best.encoding
    return FALLBACK_ENCODING
