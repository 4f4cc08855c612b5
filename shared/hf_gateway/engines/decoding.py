"""What `generate` of transformers calls for each token: how it is sampled, and when generation stops.

Imports torch, so it is imported only when a model is loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers.generation import logits_process

from hf_gateway.values.chat import Sampling

# Sampling fields of a generation config, with the processor of each and the value that has no effect.
_SHAPES: Mapping[str, tuple[str, float]] = {
    "temperature": ("TemperatureLogitsWarper", 1.0),
    "top_k": ("TopKLogitsWarper", 0),
    "top_p": ("TopPLogitsWarper", 1.0),
    "min_p": ("MinPLogitsWarper", 0.0),
    "typical_p": ("TypicalLogitsWarper", 1.0),
    "epsilon_cutoff": ("EpsilonLogitsWarper", 0.0),
}


class SeededSampling:
    """Samples a token with its own generator, so that a seed is not affected by other sampling in this process.

    transformers samples with torch's global generator; as the last of its processors, this one leaves it a single
    choice.
    """

    def __init__(self, shapes: Mapping[str, float], seed: int | None, device: torch.device) -> None:
        """Set up the processors.

        Args:
            shapes: sampling fields, by their names in a generation config.
            seed: seed of the generator; None for a random one.
            device: device of the scores.
        """
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            # OpenAI's seeds are signed; torch accepts at most 64 bits.
            self._generator.manual_seed(seed % 2**63)
        self._shapes = [
            getattr(logits_process, _SHAPES[name][0])(value if name == "top_k" else float(value))
            for name, value in shapes.items()
            if value != _SHAPES[name][1]
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores in which only the sampled token's is finite."""
        for shape in self._shapes:
            scores = shape(input_ids, scores)
        drawn = torch.multinomial(scores.float().softmax(-1), 1, generator=self._generator)
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn, 0.0)


class AllowedTokens:
    """Restricts the beginning of an answer to some sequences of token ids; what follows is free."""

    def __init__(self, start: int, beginnings: Sequence[Sequence[int]]) -> None:
        """Set the position of the answer's first token, and the allowed sequences."""
        self._start, self._beginnings = start, [list(beginning) for beginning in beginnings]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of tokens that continue an allowed sequence, and minus infinity for the others."""
        generated = input_ids[0, self._start :].tolist()
        place = len(generated)
        allowed = [way[place] for way in self._beginnings if len(way) > place and way[:place] == generated]
        if not allowed:
            return scores
        kept = torch.full_like(scores, float("-inf"))
        kept[:, allowed] = scores[:, allowed]
        return kept


class Penalties:
    """OpenAI's penalties, over the tokens of the answer: score - count * frequency - (count > 0) * presence."""

    def __init__(self, start: int, frequency: float, presence: float) -> None:
        """Set the penalties and the position of the answer's first token; the prompt is not counted."""
        self._start, self._frequency, self._presence = start, frequency, presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the lowered scores."""
        generated = input_ids[:, self._start :]
        counts = torch.zeros_like(scores).scatter_add_(1, generated, torch.ones_like(generated, dtype=scores.dtype))
        return scores - counts * self._frequency - (counts > 0) * self._presence


class StopCheck:
    """Stopping criterion that passes each new token to `take`, which returns whether to stop."""

    def __init__(self, start: int, take: Callable[[int], bool]) -> None:
        """Set the callback and the position of the answer's first token."""
        self._seen, self._take, self._enough = start, take, False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002 - the protocol's
        """Return whether to stop, for the single row."""
        for token in input_ids[0, self._seen :].tolist():
            # On some devices transformers generates one more token before it checks.
            self._enough = self._enough or self._take(token)
        self._seen = input_ids.shape[1]
        return torch.full((input_ids.shape[0],), self._enough, dtype=torch.bool, device=input_ids.device)


def shapes_of(defaults: Any, sampling: Sampling) -> dict[str, float] | None:
    """Return the sampling fields of a request, or else of the model; None for greedy decoding.

    Args:
        defaults: the model's generation config.
        sampling: options of the request.
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
    """Clear sampling fields, and those that do not decode token by token, in a generation config."""
    for name in _SHAPES:
        setattr(defaults, name, None)
    defaults.do_sample = False
    defaults.num_beams = defaults.num_return_sequences = 1
    defaults.max_length = defaults.max_new_tokens = defaults.stop_strings = None
    defaults.return_dict_in_generate = False
