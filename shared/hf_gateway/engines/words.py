"""Splits a text into words, in any script, for what counts words without a model: feature hashing and BM25.

A text gives the same words on every platform and every Python from 3.11 on, since hashes of them are stored: characters are
classified and normalised by Unicode 3.2, which every Python contains frozen as `unicodedata.ucd_3_2_0`. A younger character stays
as it is, neither case-folded nor composed, and is a letter unless its block is one of symbols. Left to the interpreter are
`str.casefold` of characters that 3.2 has, which Unicode's stability policy fixes, and which characters are white space.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, groupby
from unicodedata import ucd_3_2_0

MAX_WORD_CHARS = 64
"""A longer run of letters is cut into words of this length: reordering combining marks takes time that grows with
the square of their number, and cached words stay small.
"""

# Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le to Khmer symbols, Tai Tham, Javanese and Myanmar extended.
_UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua980-\ua9ff\uaa60-\uaa7f"
UNSPACED_GRAMS = (2, 3, 4)
"""Lengths of the n-grams that stand for words in scripts without spaces."""
# Hangul, Han, kana, Bopomofo, Yi, Tangut: a character is a syllable or a morpheme.
_SYLLABIC = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u318f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00016fe0-\U0001b2ff\U00020000-\U0003ffff"
)
SYLLABIC_GRAMS = (1, 2)
"""Lengths of the n-grams that stand for words in scripts whose characters are syllables or morphemes."""
SYLLABLE = re.compile(f"[{_SYLLABIC}]")
"""A character of a syllabic script."""
SCRIPT_RUN = re.compile(f"([{_SYLLABIC}]+)|([{_UNSPACED}]+)|[^{_SYLLABIC}{_UNSPACED}]+")
"""A run of characters of one kind of script: group 1 is a syllabic one, group 2 one without spaces."""

# Soft hyphen, directional marks and variation selectors, which Unicode 3.2 classifies differently or does not have.
_INVISIBLE = re.compile("[\u00ad\u061c\u2060-\u206f\ufe00-\ufe0f\U000e0000-\U000e01ef]")
# Currencies, arrows to dingbats, pictographs: most emoji are younger than Unicode 3.2, which would make them letters.
_SYMBOL_BLOCKS = re.compile("[\u20a0-\u20cf\u2190-\u2bff\U0001f000-\U0001fbff]")


def terms_of(text: str) -> list[str]:
    """Return the terms of a text in their order, by which texts are compared word by word; empty for mere punctuation.

    A term is a whole word in lower case, a symbol, or, in scripts that put no spaces between words, a short n-gram.
    """
    return list(chain.from_iterable(map(_terms_of_word, split_words(text))))


def split_words(text: str) -> list[str]:
    """Return the words and symbols of a text in lower case, of MAX_WORD_CHARS at most; not composed yet."""
    words = text.translate(_CHARACTERS).split()
    if max(map(len, words), default=0) > MAX_WORD_CHARS:
        return [word[start : start + MAX_WORD_CHARS] for word in words for start in range(0, len(word), MAX_WORD_CHARS)]
    return words


@lru_cache(maxsize=1 << 15)
def _terms_of_word(word: str) -> tuple[str, ...]:
    terms: list[str] = []
    for match in SCRIPT_RUN.finditer(compose(word)):
        run = match.group()
        if match.lastindex is None or len(run) == 1:
            terms.append(run)
        else:
            terms += ngrams(run, SYLLABIC_GRAMS if match.lastindex == 1 else UNSPACED_GRAMS)
    return tuple(terms)


def ngrams(run: str, sizes: tuple[int, ...]) -> Iterator[str]:
    """Yield the n-grams of a run of characters.

    Args:
        run: the characters.
        sizes: lengths of the n-grams.
    """
    for size in sizes:
        for start in range(len(run) - size + 1):
            yield run[start : start + size]


def compose(word: str) -> str:
    """Compose letters and marks, as in NFKC."""
    if word.isascii():
        return word
    # Even the frozen tables compose and reorder characters they do not have, by the interpreter's own Unicode.
    return "".join(
        ucd_3_2_0.normalize("NFKC", "".join(run)) if known else "".join(run) for known, run in groupby(word, _is_known)
    )


def _is_known(char: str) -> bool:
    return ucd_3_2_0.category(char) != "Cn"


class _Characters(dict[int, str]):
    """Maps code points to their replacement in a text of words between spaces, for `str.translate`; fills itself."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if _is_known(char):
            char = ucd_3_2_0.normalize("NFKC", char).casefold()
        found = "".join(map(_normalized_char, char))
        # Bounded, so that no text can fill the memory with a million characters.
        if len(self) < 1 << 16:
            self[code] = found
        return found


def _normalized_char(char: str) -> str:
    """Return a letter, mark or digit unchanged, a symbol as a separate word, an empty string or a space for the rest."""
    category = ucd_3_2_0.category(char)
    if category == "Cf" or _INVISIBLE.match(char):
        return ""
    if category[0] == "S" or category in ("Co", "Cs") or (category == "Cn" and _SYMBOL_BLOCKS.match(char)):
        return f" {char} "
    return char if category[0] in "LMN" or category == "Cn" else " "


_CHARACTERS = _Characters()
