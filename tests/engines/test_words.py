"""Words of a text in any script, the same on every Python: what BM25 counts and feature hashing hashes."""

import pytest

from hf_gateway.engines.words import MAX_WORD_CHARS, split_words, terms_of


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Catch an Exception.", ["catch", "an", "exception"]),
        ("__init__ and str.format", ["init", "and", "str", "format"]),
        ("a += 1", ["a", "+", "=", "1"]),
        ("Größe STRASSE Straße", ["grösse", "strasse", "strasse"]),
        ("Cafe\u0301 café", ["café", "café"]),
        ("Ελληνικά και русский", ["ελληνικά", "και", "русский"]),
        ("深層学習", ["深", "層", "学", "習", "深層", "層学", "学習"]),
        ("字", ["字"]),
        ("ภาษา", ["ภา", "าษ", "ษา", "ภาษ", "าษา", "ภาษา"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("good 🙂", ["good", "🙂"]),
        ("... -- !?", []),
        ("", []),
    ],
)
def test_terms_in_any_script(text: str, terms: list[str]) -> None:
    assert terms_of(text) == terms


def test_a_word_without_end_is_cut() -> None:
    assert list(map(len, split_words("x" * 150))) == [MAX_WORD_CHARS, MAX_WORD_CHARS, 22]
    assert len(terms_of("x" * 150)) == 3
