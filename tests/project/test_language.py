"""The words of the code: each rule of the lint finds a planted example, and the packages have none."""

import pytest

from tests.language_lint import BANNED_OPENINGS, BANNED_PHRASES, main, problems

CLEAN = '''
"""Counts the replies of a server."""

from dataclasses import dataclass

MAX_REPLIES_BYTES = 3
TIMEOUT_S = 0.5
VERSION = 2


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    """What the server sent."""

    def shortened(self, chars: int, end: str) -> str:
        """Return the beginning of the text.

        Args:
            chars: how many characters to keep.
            end: what to write after them.
        """
        return self.text[:chars] + end

    @property
    def answered(self) -> bool:
        """Whether it has ended."""
        return True
'''


def rules(source: str, module: str = "replies") -> list[str]:
    return [problem.rule for problem in problems(source, module)]


def test_plain_words_pass() -> None:
    assert rules(CLEAN) == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("word", 'x = f"nobody knows what {1} attempts cost"'),
        ("word", "x = 1  # for whoever waits"),
        ("word", 'def f():\n    """Return a commit, or None where\n    there is none."""'),
        ("word", 'raise ValueError("it is no JSON")'),
        ("word", 'raise ValueError("the server serves no chat")'),
        ("opening", 'def f():\n    """Say whether it is there."""'),
        ("opening", '"""Give the replies."""'),
        ("participle", "def said():\n    pass"),
        ("participle", "class Reply:\n    async def _kept(self):\n        pass"),
        ("metaphor", "class ChatPortal:\n    pass"),
        ("unit", "PATIENCE = 30"),
        ("unit", "_PATIENCE: float = 2 * 30.0"),
        ("field", CLEAN.replace('    """What the server sent."""\n', "")),
        ("args", CLEAN.replace("Args:", "With:")),
        ("args", 'def f(a, *, b):\n    """Return both."""'),
    ],
)
def test_every_rule_finds_a_planted_example(rule: str, source: str) -> None:
    assert rules(source) == [rule]


def test_an_async_twin_needs_no_second_list_of_its_parameters_where_the_first_is_there() -> None:
    twin = '    async def ashortened(self, chars, end):\n        """Async form of `shortened`."""\n'
    assert rules(f"{CLEAN}\n{twin}") == []
    assert rules(f"{CLEAN}\n{twin.replace('`shortened`', '`lengthened`')}") == ["args"]


def test_a_module_named_after_a_metaphor_is_found() -> None:
    assert rules(CLEAN, "index_journal") == ["metaphor"]


@pytest.mark.parametrize("words", ["there is no model", "this is no longer used", "it says nothingness"])
def test_phrases_that_only_resemble_a_banned_one_pass(words: str) -> None:
    assert rules(f'x = "{words}"') == []


def test_every_banned_word_has_what_to_write_instead() -> None:
    assert all(BANNED_PHRASES.values())
    assert all(BANNED_OPENINGS.values())


def test_the_words_of_the_packages_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0, capsys.readouterr().out
