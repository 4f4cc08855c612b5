"""Reads the configuration of a network and its tensors, strictly: what a family does not know is refused, never ignored."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_gateway.engines.networks.safetensors import Tensor
from hf_gateway.engines.networks.writer import Activation
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAX_COUNT = 10_000_000
"""Maximum of any number in a configuration: more tokens, layers or values than any model has."""
MAX_NUMBER = 1e12
"""Maximum of other numbers, such as the base of rotary positions."""
_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' names."""


@dataclass
class Config:
    """The values of a config.json, and which of them were read."""

    values: Mapping[str, Any]
    """The decoded file."""

    def count(self, name: str, default: int | None = None) -> int:
        """Return a whole number above 0.

        Args:
            name: of the setting.
            default: for a missing setting; None if it is required.

        Raises:
            EngineFailed: anything else.
        """
        value = self.values.get(name, default)
        if type(value) is not int or not 0 < value <= MAX_COUNT:
            raise EngineFailed(f"its config.json has {name}={value!r:.60}, not a whole number from 1 to {MAX_COUNT}")
        return value

    def heads(self, name: str, hidden: int) -> int:
        """Return the number of attention heads, which divides the values per token.

        Args:
            name: of the setting.
            hidden: values per token.

        Raises:
            EngineFailed: anything else.
        """
        heads = self.count(name)
        if hidden % heads:
            raise EngineFailed(f"its config.json has {name}={heads}, which does not divide {hidden} values per token")
        return heads

    def number(self, name: str, default: float) -> float:
        """Return a finite number above 0.

        Args:
            name: of the setting.
            default: for a missing setting.

        Raises:
            EngineFailed: anything else.
        """
        value = self.values.get(name, default)
        if type(value) not in (int, float) or not 0 < value < MAX_NUMBER:
            raise EngineFailed(f"its config.json has {name}={value!r:.60}, not a number above 0")
        return float(value)

    def switch(self, name: str, *, default: bool = False) -> bool:
        """Return a setting that is true or false; null is false.

        Args:
            name: of the setting.
            default: for a missing setting.

        Raises:
            EngineFailed: anything else.
        """
        value = self.values.get(name, default)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise EngineFailed(f"its config.json has {name}={value!r:.60}, neither true nor false")
        return value

    def require_off(self, *names: str) -> None:
        """Raise EngineFailed for a setting that is true, or no switch."""
        for name in names:
            if self.switch(name):
                raise EngineFailed(f"its config.json has {name}=True, which is not supported here")

    def listed(self, name: str, choices: Container[str], count: int) -> tuple[str, ...] | None:
        """Return a list of names, one for each layer; None for a missing setting.

        Args:
            name: of the setting.
            choices: the names that are known.
            count: how many there are.

        Raises:
            EngineFailed: anything else.
        """
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count or not all(isinstance(each, str) for each in value):
            raise EngineFailed(f"its config.json has {name}={value!r:.60}, not {count} names")
        if unknown := [each for each in value if each not in choices]:
            raise EngineFailed(f"its config.json has {unknown[0]!r:.60} in {name}, which is not supported here")
        return tuple(value)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of several names.

        Args:
            name: of the setting.
            choices: the names that are known, the default first.

        Raises:
            EngineFailed: anything else.
        """
        value = self.values.get(name, choices[0])
        if not isinstance(value, str) or value not in choices:
            raise EngineFailed(f"its config.json has {name}={value!r:.60}, which is not one of {', '.join(choices)}")
        return value

    def activation(self, name: str, default: str = "gelu") -> Activation:
        """Return the activation function that a setting names.

        Args:
            name: of the setting.
            default: for a missing setting.

        Raises:
            EngineFailed: one that is not known here.
        """
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise EngineFailed(
                f"its config.json has {name}={value!r:.60}, which is not one of {', '.join(_ACTIVATIONS)}"
            )
        return _ACTIVATIONS[value]

    def labels(self) -> list[str]:
        """Return the names of a head's labels, with transformers' defaults. Raises EngineFailed for impossible ones."""
        named, count = self.values.get("id2label"), self.values.get("num_labels")
        if named is None:
            return [f"LABEL_{place}" for place in range(self.count("num_labels", 2))]
        if not isinstance(named, dict) or sorted(named) != sorted(map(str, range(len(named)))) or not named:
            raise EngineFailed("its config.json has an id2label that does not name the labels from 0 on")
        if count not in (None, len(named)):
            raise EngineFailed(f"its config.json has num_labels={count!r:.60}, but names {len(named)} labels")
        return [str(named[str(place)]) for place in range(len(named))]

    def require(self, **wanted: Any) -> None:
        """Raise EngineFailed for a setting that has another value than the network here computes with; missing ones pass."""
        for name, value in wanted.items():
            if self.values.get(name, value) != value:
                raise EngineFailed(f"its config.json has {name}={self.values[name]!r:.60}, which is not supported here")


class TensorMissing(EngineFailed):
    """A tensor that a network needs is not in its files."""


@dataclass
class Weights:
    """The tensors of a network, each with the shape that the configuration asks for."""

    tensors: Mapping[str, Tensor]
    """By name, without a prefix that all have."""
    taken: set[str] = field(default_factory=set)
    """Names of the tensors that were used."""
    read: bool = True
    """Whether their numbers are needed; if not, zeros that take no memory stand for them."""

    def take(self, name: str, *shape: int) -> "Array":
        """Return a tensor as float32, or as `Tensor.numbers` does, of which the writers know what to make.

        Args:
            name: its name.
            shape: the shape that it has by the configuration.

        Raises:
            EngineFailed: it is missing, or has another shape.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise TensorMissing(f"the tensor {name!r} is missing in its files")
        if tensor.shape != shape:
            raise EngineFailed(f"the tensor {name!r} has the shape {tensor.shape}, but by config.json it is {shape}")
        tensor.require_known()
        self.taken.add(name)
        if not self.read:
            import numpy as np

            return np.broadcast_to(np.float32(0), shape)
        return tensor.numbers()

    def refuse_rest(self, parts: tuple[str, ...] | None, harmless: tuple[str, ...]) -> None:
        """Refuse tensors of the network that were not used, since it would compute something else with them.

        Args:
            parts: the first parts of the names of the network's own tensors; None if all in its files are.
            harmless: parts of names of tensors that do not change its output.

        Raises:
            EngineFailed: there are such tensors.
        """
        rest = [
            name
            for name in sorted(self.tensors)
            if name not in self.taken
            and (parts is None or name.split(".")[0] in parts)
            and not any(each in name for each in harmless)
        ]
        if rest:
            more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
            raise EngineFailed(
                f"its files have the tensor {rest[0]!r}{more}, which the network of config.json does not have"
            )
