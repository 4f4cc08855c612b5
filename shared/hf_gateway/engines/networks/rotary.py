"""Rotary positions: the angles by which pairs of values of queries and keys are turned, by a model's settings.

Only what is computed exactly here is accepted: no scaling, "linear" and, for the models that have it, "ntk". Others are refused
by name.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_gateway.engines.networks.config import Config
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAX_TABLE_VALUES = 2**25
"""Maximum values of a table of cosines: several times those of the largest models, and 128 MiB."""
_KNOWN = frozenset({"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"})
"""Settings that are read, or that change nothing in the scalings that are known."""
_NEUTRAL = (None, 1, 1.0)
"""Values of other settings that change nothing."""


def settings(config: Config, kind: str | None = None, *, older: bool = True) -> Mapping[str, Any]:
    """Return the settings of rotary positions.

    Args:
        config: the configuration.
        kind: of attention, such as "full_attention", for a family that has settings for each kind.
        older: whether those in the place that older files have them, `rope_scaling`, apply.

    Raises:
        EngineFailed: they are no mapping, or not by kind where they should be.
    """
    given, scaling = (config.values.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    inner = given.get(kind) or {} if isinstance(given, Mapping) and kind else given
    for found in (given, scaling, inner):
        if not isinstance(found, Mapping):
            raise EngineFailed(f"its config.json has the rotary settings {found!r:.60}, which are not a JSON object")
    if kind and not all(each is None or isinstance(each, Mapping) for each in given.values()):
        raise EngineFailed("its config.json has rope_parameters that are not given for each kind of attention")
    return {**inner, **scaling} if older else inner


def frequencies(config: Config, width: int, base: float, scaling: Mapping[str, Any], *, ntk: bool = False) -> "Array":
    """Return the angle per position of each pair of values, in radians, (width / 2,) float32.

    Args:
        config: the configuration.
        width: values of a head.
        base: the base of the angles ("theta"), unless `scaling` has one.
        scaling: the settings, empty without any.
        ntk: whether the scaling "ntk" is known, which is fixed for all lengths.

    Raises:
        EngineFailed: another scaling, or sizes that cannot be.
    """
    import numpy as np

    if width % 2:
        raise EngineFailed(f"its heads have {width} values, an odd number, which rotary positions cannot have")
    length = config.count("max_position_embeddings")
    if length * width > 2 * MAX_TABLE_VALUES:
        raise EngineFailed(f"its config.json has max_position_embeddings={length}, too many for rotary positions here")
    config.require(partial_rotary_factor=1.0)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    known = ("default", "linear", "ntk") if ntk else ("default", "linear")
    if kind not in known:
        raise EngineFailed(f"its rotary positions are scaled by {kind!r:.60}, which is not one of {', '.join(known)}")
    for name, value in scaling.items():
        if name not in _KNOWN and value not in _NEUTRAL:
            raise EngineFailed(
                f"its rotary positions have the setting {name}={value!r:.60}, which is not supported here"
            )
    theta, divisor = Config(scaling).number("rope_theta", base), 1.0
    if kind != "default":
        factor = Config(scaling).number("factor", 0.0)  # required
        if kind == "linear":
            divisor = factor
        elif factor > 1:
            theta, divisor = theta * factor, factor ** (2 / width)
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    made: Array = (1 / np.float32(theta) ** exponents / np.float32(divisor)).astype(np.float32)
    return made


def tables(frequencies: "Array", length: int) -> tuple["Array", "Array"]:
    """Return the cosines and the sines of the angles at positions 0 … length-1, each (length, k / 2) float32.

    Args:
        frequencies: angle per position of each pair of values, in radians, (k / 2,).
        length: number of positions.
    """
    import numpy as np

    angles = np.outer(np.arange(length, dtype=np.float32), frequencies)
    return np.cos(angles), np.sin(angles)
