"""What of a wrong server's vectors gets out where two servers of different models stand behind one address.

`python -m tests.mixed_servers_bound [GATEWAYS]` measures the bound that the README states: gateways that embed 300 texts each
over a balancer that takes the wrong server by chance, by size and role of their requests, with canaries within the requests
and with the checks in requests of their own alone.
"""

import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from unittest import mock

from hf_gateway import Gateway, errors
from hf_gateway.spaces.guard import Guard
from hf_gateway.testing import Answering
from tests.servers import unit_vectors

TEXTS = 300
DIM = 16


def _right(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors(texts, DIM)


def _wrong(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts], DIM)


def _given(seed: int, share: float, size: int, role: str) -> tuple[int, int]:
    """Return how many vectors one gateway gave, and how many of them are of the model that gave fewer."""
    dice = random.Random(seed)

    def balancer(texts: list[str]) -> list[list[float]]:
        return (_wrong if dice.random() < share else _right)(texts)

    gateway = Gateway(
        "bound/model", ["openai:http://balancer:80"], transport=Answering({"balancer:80": balancer}), check_space=True
    )
    right = wrong = 0
    for start in range(0, TEXTS, size):
        texts = [f"text {number}" for number in range(start, min(start + size, TEXTS))]
        try:
            rows = gateway.embed(texts, role=role).vectors.tolist()  # type: ignore[arg-type]
        except errors.GatewayError:
            break
        of_right = sum(abs(a[0] - b[0]) < 1e-6 for a, b in zip(rows, _right(texts), strict=True))
        right, wrong = right + of_right, wrong + len(rows) - of_right
    return right + wrong, min(right, wrong)


def main() -> None:
    """Measure, and print a line a case."""
    gateways = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    sys.stdout.write(
        f"{gateways} gateways, {TEXTS} texts each; vectors of the model that gave fewer: gateways with any, median, most\n"
    )
    for riding in (False, True):
        for role, size in (("document", 32), ("document", 1), ("query", 1)):
            for share in (0.5, 0.1):
                with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ):
                    patch = mock.patch.object(
                        Guard, "_canary_is_due", Guard._canary_is_due if riding else lambda *_: False
                    )
                    with patch:
                        found = []
                        for seed in range(gateways):
                            os.environ["HF_GATEWAY_HOME"] = f"{home}/{seed}"
                            found.append(_given(seed, share, size, role)[1])
                mixed = [count for count in found if count]
                how = "within requests" if riding else "checks alone   "
                sys.stdout.write(
                    f"  {how}  {role:8} {size:2} a request, wrong server {share:.0%}: "
                    f"{len(mixed)} of {gateways}, {statistics.median(mixed) if mixed else 0:g}, {max(found)}\n"
                )


if __name__ == "__main__":
    main()
