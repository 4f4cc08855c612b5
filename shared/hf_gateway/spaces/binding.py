"""Space bindings: what a chain has promised about its vectors, in a form that copies, pickles and worker processes can hold."""

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
    """What binds a chain, and so each of its copies, to one vector space."""

    pinned: VectorSpace | None = None
    """The space of the vectors that the chain has returned; None before the first."""
    reference: Rows | None = None
    """The fingerprint of the target that gave the first vector."""
    dimension: int | None = None
    """The dimension of all vectors so far; None before the first."""
    locks: tuple[IndexLock, ...] = ()
    """The locks of the indexes that the chain is bound to."""
    decision: "SpaceDecision | None" = None
    """Shared by a chain that was copied before its first vector and its copies; None if there is nothing to decide."""


@dataclass(frozen=True)
class SpaceDecision:
    """The choice of one space that a chain and its copies make together: the first of them that answers decides for all.

    It is stored in a file under HF_GATEWAY_HOME, which processes of one machine share; if none can be written, it holds for the
    copies within this process.
    """

    id: str = field(default_factory=lambda: uuid4().hex)
    """Name of the file."""

    def settle(self, space: VectorSpace, reference: Rows | None) -> "SpaceBinding":
        """Decide for a space unless another copy has decided; returns the binding of all copies.

        Args:
            space: the space of the first vector here.
            reference: the fingerprint of the target that gave it.
        """
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
                f"the space of a copied chain cannot be stored ({error}), so its copies in other processes decide again"
            )
            return own


_SETTLED: dict[str, SpaceBinding] = {}
"""Decisions known to this process, by id."""
