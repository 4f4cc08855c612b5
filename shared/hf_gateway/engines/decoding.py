"""What `generate` of transformers calls at each token: how the next one is drawn, and when there are enough.

Imports torch, so it is imported when a model is loaded, not before.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers.generation import logits_process

from hf_gateway.values.chat import Sampling

# The fields of a generation config that shape a draw, with the processor each is given to and the value that changes nothing.
_SHAPES: Mapping[str, tuple[str, float]] = {
    "temperature": ("TemperatureLogitsWarper", 1.0),
    "top_k": ("TopKLogitsWarper", 0),
    "top_p": ("TopPLogitsWarper", 1.0),
    "min_p": ("MinPLogitsWarper", 0.0),
    "typical_p": ("TypicalLogitsWarper", 1.0),
    "epsilon_cutoff": ("EpsilonLogitsWarper", 0.0),
}


class SeededSampling:
    """Draws a token with a generator of its own, so that a seed holds whatever else draws in this process.

    transformers draws with torch's global generator; as the last of its processors this one leaves it a single choice.
    """

    def __init__(self, shapes: Mapping[str, float], seed: int | None, device: torch.device) -> None:
        """Take what shapes the draw, by the names of a generation config."""
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            # OpenAI's seeds are signed, and torch takes no more than 64 bits.
            self._generator.manual_seed(seed % 2**63)
        self._shapes = [
            getattr(logits_process, _SHAPES[name][0])(value if name == "top_k" else float(value))
            for name, value in shapes.items()
            if value != _SHAPES[name][1]
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores among which only the drawn token's is finite."""
        for shape in self._shapes:
            scores = shape(input_ids, scores)
        drawn = torch.multinomial(scores.float().softmax(-1), 1, generator=self._generator)
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn, 0.0)


class AllowedTokens:
    """Lets an answer begin in some ways only, each a sequence of token ids, and go on as it likes."""

    def __init__(self, start: int, beginnings: Sequence[Sequence[int]]) -> None:
        """start: where the answer begins."""
        self._start, self._beginnings = start, [list(beginning) for beginning in beginnings]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the tokens that go on with a beginning, and minus infinity for the others."""
        said = input_ids[0, self._start :].tolist()
        place = len(said)
        allowed = [way[place] for way in self._beginnings if len(way) > place and way[:place] == said]
        if not allowed:
            return scores
        kept = torch.full_like(scores, float("-inf"))
        kept[:, allowed] = scores[:, allowed]
        return kept


class Penalties:
    """OpenAI's penalties, over the tokens of the answer: score - count * frequency - (count > 0) * presence."""

    def __init__(self, start: int, frequency: float, presence: float) -> None:
        """start: where the answer begins; the prompt is not counted."""
        self._start, self._frequency, self._presence = start, frequency, presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the lowered scores."""
        said = input_ids[:, self._start :]
        counts = torch.zeros_like(scores).scatter_add_(1, said, torch.ones_like(said, dtype=scores.dtype))
        return scores - counts * self._frequency - (counts > 0) * self._presence


class StopCheck:
    """Shows each new token to `take`, which says when there are enough; a stopping criterion."""

    def __init__(self, start: int, take: Callable[[int], bool]) -> None:
        """start: where the answer begins."""
        self._seen, self._take, self._enough = start, take, False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002 - the protocol's
        """Return whether to stop, for each row; there is one."""
        for token in input_ids[0, self._seen :].tolist():
            # On some devices transformers goes one token further before it listens.
            self._enough = self._enough or self._take(token)
        self._seen = input_ids.shape[1]
        return torch.full((input_ids.shape[0],), self._enough, dtype=torch.bool, device=input_ids.device)


def shapes_of(defaults: Any, sampling: Sampling) -> dict[str, float] | None:
    """Return what shapes the draw: the request's word, else the model's; None for the likeliest token each time.

    defaults: the model's generation config.
    """
    drawn = defaults.do_sample if sampling.temperature is None else sampling.temperature > 0
    if not drawn:
        return None
    found = {name: getattr(defaults, name, None) for name in _SHAPES}
    for name in ("temperature", "top_k", "top_p", "min_p"):
        if (value := getattr(sampling, name)) is not None:
            found[name] = value
    return {name: value for name, value in found.items() if value is not None}


def without_draw(defaults: Any) -> None:
    """Clear from a generation config what `shapes_of` reads and what decodes otherwise than token by token."""
    for name in _SHAPES:
        setattr(defaults, name, None)
    defaults.do_sample = False
    defaults.num_beams = defaults.num_return_sequences = 1
    defaults.max_length = defaults.max_new_tokens = defaults.stop_strings = None
    defaults.return_dict_in_generate = False
