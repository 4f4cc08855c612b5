"""Space bindings: what a chain has promised about its vectors, in a form that copies, pickles and worker processes carry."""

import json
from dataclasses import dataclass, field
from uuid import uuid4

from hf_gateway.errors import ConfigError
from hf_gateway.spaces.fingerprint import Fingerprint, Rows
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.storage.files import create_atomically, home
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.vector_space import VectorSpace


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

    def settle(self, space: VectorSpace, reference: Rows | None) -> "SpaceBinding":
        """Decide for this space and fingerprint unless another copy has decided; returns what holds for all copies."""
        return _SETTLED.get(self.id) or _SETTLED.setdefault(self.id, self._settle_file(SpaceBinding(space, reference)))

    def _settle_file(self, own: "SpaceBinding") -> "SpaceBinding":
        assert own.pinned is not None
        rows = None if own.reference is None else Fingerprint(own.pinned, "server", "", own.reference).to_dict()
        path = home() / "decisions" / f"{self.id}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            create_atomically(path, json.dumps({"space": own.pinned.to_dict(), "fingerprint": rows}).encode())
            held = json.loads(path.read_bytes())
            measured = None if held["fingerprint"] is None else Fingerprint.from_dict(held["fingerprint"]).rows
            return SpaceBinding(VectorSpace.from_dict(held["space"]), measured)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
            notice_once(
                f"the space that a copied chain answers in cannot be kept ({error}), so its copies in other processes decide anew"
            )
            return own


_SETTLED: dict[str, SpaceBinding] = {}
"""Decisions that this process knows, by their id."""
