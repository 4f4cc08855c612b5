"""Space bindings: what a chain has promised about its vectors, in a form that copies, pickles and worker processes carry."""

import json
from dataclasses import dataclass, field
from uuid import uuid4

from hf_gateway.errors import ConfigError
from hf_gateway.fingerprint import Rows
from hf_gateway.home import create_atomically, home
from hf_gateway.lock import IndexLock
from hf_gateway.notices import notice_once
from hf_gateway.space import VectorSpace


@dataclass(frozen=True)
class SpaceBinding:
    """What binds a chain, and therefore each of its copies, to one vector space."""

    pinned: VectorSpace | None = None
    """The space whose vectors the chain has given; None before the first."""
    reference: Rows | None = None
    """The fingerprint of the target that gave the first vector."""
    dimension: int | None = None
    """The dimension of all vectors so far."""
    locks: tuple[IndexLock, ...] = ()
    """The locks of the indexes that the chain is held to, as far as they are known."""
    decision: "SpaceDecision | None" = None
    """Shared by a chain that was copied before its first vector, and its copies; None where nothing is left to decide."""


@dataclass(frozen=True)
class SpaceDecision:
    """The choice of one space that a chain and its copies make together: the first of them that answers decides for all.

    It lies in a file under HF_GATEWAY_HOME, which processes of one machine share; where none can be written, it holds for
    the copies within this process.
    """

    id: str = field(default_factory=lambda: uuid4().hex)

    def settle(self, space: VectorSpace) -> VectorSpace:
        """Decide for this space unless another copy has decided; returns the space that holds for all copies."""
        return _SETTLED.get(self.id) or _SETTLED.setdefault(self.id, self._settle_file(space))

    def _settle_file(self, space: VectorSpace) -> VectorSpace:
        path = home() / "decisions" / f"{self.id}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            create_atomically(path, json.dumps(space.to_dict()).encode())
            return VectorSpace.from_dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, ConfigError) as error:
            notice_once(
                f"the space that a copied chain answers in cannot be kept ({error}), so its copies in other processes decide anew"
            )
            return space


_SETTLED: dict[str, VectorSpace] = {}
"""Decisions that this process knows, by their id."""
