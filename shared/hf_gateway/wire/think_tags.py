"""Reasoning in the text of an answer: `<think>…</think>` before the answer, as servers without a reasoning parser send it.

It is at the beginning of an answer and nowhere else, so a tag that is mentioned later is text. Many templates write the opening
tag into the prompt; then the answer contains only the closing one.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatEvent

THINK, THINK_END = "<think>", "</think>"

PAIRS = ((THINK, THINK_END), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]"))
"""The tags around reasoning: of most models, of ByteDance's Seed, of Mistral's Magistral."""

OPENED_BY_TEMPLATE = re.compile(r"(?:^|[/_.-])(?:deepseek-r1|qwq)|-thinking(?:$|[-_.:])", re.IGNORECASE)
"""Names of models whose own chat templates end a prompt with the opening tag."""

_BLANK, _LINE_END, _SENTENCE_END, _NO_END = (" ", "\t"), ("", "\r", "\n"), ".!?…。\uff01\uff1f", " \t`'\"("
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)


def partial_tag_length(text: str, words: tuple[str, ...] | list[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of one of the words.

    Args:
        text: the text so far.
        words: the words that may follow.
    """
    longest = 0
    for word in words:
        for length in range(min(len(word) - 1, len(text)), longest, -1):
            if text.endswith(word[:length]):
                longest = length
                break
    return longest


class ThoughtSplitter:
    """Splits a text that arrives in pieces into the reasoning at its beginning and the rest.

    thinking: whether the text is within its reasoning; closed: whether reasoning was found that has ended.
    """

    def __init__(self, *, opened: bool = False) -> None:
        """opened: whether the prompt ends with the opening tag, so that the text begins within the reasoning."""
        self.thinking = opened
        self.closed = False
        self.tagged = False
        self._opened = opened
        self._close = THINK_END
        self._settled = False
        self._trimming = False
        self._held: list[str] = []
        self._blank = True

    @property
    def passes(self) -> bool:
        """Whether text is passed on as it is from here on: what may be reasoning is over."""
        return self._settled and not (self.thinking or self._trimming or self._held)

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """Add text; yields pieces of it, each with whether it is reasoning."""
        self._held.append(text)
        if self._blank and not text.strip() and (self.thinking or not self._settled):
            return  # a model may write blanks without end, and all of them would be looked at again with each
        held = "".join(self._held)
        self._hold("")
        if not self._settled:
            after = self._settle(held)
            if after is None:
                return
            held = after
        if self.thinking:
            place = held.find(self._close)
            if place < 0:
                kept = held[: len(held) - partial_tag_length(held, [self._close])].rstrip()
                self._hold(held[len(kept) :])
                yield from self._piece(True, kept)
                return
            said, held = held[:place].rstrip(), held[place + len(self._close) :]
            yield from self._piece(True, said)
            self.thinking, self.closed, self._trimming = False, True, True
        yield from self._piece(False, held)

    def finish(self) -> Iterator[tuple[bool, str]]:
        """Yield the text that was held back."""
        said = "".join(self._held)
        self._hold("")
        yield from self._piece(self.thinking and self._settled, said.rstrip() if self.thinking else said)

    def _hold(self, text: str) -> None:
        self._held, self._blank = [text] if text else [], not text.strip()

    def _settle(self, held: str) -> str | None:
        """Determine how the text begins; returns what comes after its tag, or None while that is not known."""
        start = held.lstrip()
        for opening, closing in PAIRS:
            if start.startswith(opening):
                self.thinking, self.tagged, self._close, self._trimming = True, True, closing, True
                self._settled = True
                return start[len(opening) :]
        if not start or any(opening.startswith(start) for opening, _ in PAIRS):
            self._hold(held)
            return None
        # An answer that is held to a JSON schema begins with it; reasoning never does.
        self.thinking = self._opened and not start.startswith(("{", "["))
        self._trimming, self._settled = self.thinking, True
        return held

    def _piece(self, thoughts: bool, said: str) -> Iterator[tuple[bool, str]]:
        if self._trimming:
            said = said.lstrip()
            self._trimming = not said
        if said:
            yield thoughts, said


class ThoughtReader:
    """Reads the events of one answer, and moves reasoning out of their text.

    opens: whether the answer showed that the template writes the opening tag (True) or does not (False); None if unknown.
    """

    def __init__(self, *, opened: bool = False) -> None:
        """opened: whether the prompt ends with the opening tag, as far as it is known."""
        self.opens: bool | None = None
        self._opened = opened
        self._splitter = ThoughtSplitter(opened=opened)
        self._text: list[str] = []
        self._calls = False
        self._parsed = False
        self._reason: str | None = None
        self._final: tuple[str, str] | None = None

    def read(self, event: ChatEvent) -> ChatEvent:
        """Return an event with the reasoning moved to its field."""
        if self._parsed:
            return event
        self._calls = self._calls or bool(event.tool_calls)
        if event.reasoning:
            # The server has a parser, so that text is text.
            self._parsed, self.opens = True, False
            kept = "".join(text for _, text in self._splitter.finish())
            return replace(event, text=kept + event.text)
        self._text.append(event.text)
        if event.finish_reason is None and self._splitter.passes:
            return event
        pieces = list(self._splitter.feed(event.text))
        if event.finish_reason is not None and self._reason is None:  # a server may send one with every piece
            self._reason = event.finish_reason
            pieces += self.end()
        told = "".join(text for thoughts, text in pieces if thoughts)
        said = "".join(text for thoughts, text in pieces if not thoughts)
        if event.finish_reason is not None and len(self._text) == 1 and self._final is not None:
            told, said = self._final  # the answer came at once: nothing was emitted yet that turned out otherwise
        return event if said == event.text and not told else replace(event, text=said, reasoning=told)

    def end(self) -> list[tuple[bool, str]]:
        """Handle the end of the answer; returns the held text, and all of it as text if it was not reasoning after all."""
        if self._parsed or self._final is not None:
            return []
        whole, splitter = "".join(self._text), self._splitter
        pieces = list(splitter.finish())
        if splitter.closed:
            self.opens = not splitter.tagged
            self._final = None
            return pieces
        if splitter.thinking and (self._calls or self._reason == "length"):
            return pieces
        if splitter.thinking:
            self.opens = None if splitter.tagged else False
            self._final = "", whole
            return [*pieces, (False, whole)]
        if (place := _lone_end(whole)) is not None:
            self.opens = True
            self._final = whole[:place].strip(), whole[place + len(THINK_END) :].lstrip()
        elif self._opened:
            self.opens = False
        return pieces

    def settle(self, builder: AnswerBuilder) -> None:
        """Correct the answer if its end showed that emitted pieces were of the other kind."""
        if self._final is not None:
            builder.replace_content(*self._final)


def _lone_end(text: str) -> int | None:
    """Return the place of a closing tag whose opening one is in the prompt; None if the text only mentions the tag."""
    place = text.find(THINK_END)
    if place < 0 or THINK in text[:place] or text.lstrip().startswith(("{", "[")):
        return None
    before, after = text[:place], text[place + len(THINK_END) :]
    line = before.rpartition("\n")[2]
    if len(_FENCE.findall(before)) % 2 or line.count("`") % 2 or line.count('"') % 2:
        return None  # in code, or in quotes
    # A mention is within a line. A model that ends its reasoning writes the tag directly after it, or on a line of its own.
    if not line.strip():
        return None if after[:1] in _BLANK else place
    ends = after[:1] in _LINE_END or line[-1] in _SENTENCE_END
    return place if ends and line[-1] not in _NO_END else None
