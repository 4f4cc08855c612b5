"""One job, one vector space: whatever the servers of its workers answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.errors import GatewayError
from tests.servers import unit_vectors
from tests.servers.loopback import Recorded, Reply, Stream
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset


class TwoServers(FakeOpenAI):
    """An address with two servers behind it, as a balancer has: each connection stays with one of them."""

    def __init__(self) -> None:
        self._second = False
        super().__init__(models=None, embed=self._turned)

    def handle(self, request: Recorded) -> Reply | Stream:
        with self._arrived:
            self._second = bool(request.connection % 2)
            return super().handle(request)

    def _turned(self, texts: Sequence[str]) -> list[list[float]]:
        rows = unit_vectors(texts)
        return [row[::-1] for row in rows] if self._second else rows


def spaces_of(out: Path, texts: dict[str, str]) -> set[str]:
    """Return the spaces of all rows of all parts that are there."""
    found = set()
    for part in out.glob("part-*.parquet"):
        table = pq.read_table(part)
        for name, vector in zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True):
            (expected,) = unit_vectors([texts[name]])
            same, turned = np.allclose(vector, expected, atol=1e-5), np.allclose(vector, expected[::-1], atol=1e-5)
            found.add("first" if same else "second" if turned else "neither")
    return found


def test_workers_whose_servers_answer_in_different_spaces_write_not_one_mixed_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_GATEWAY_CHECK_SPACE", "1")
    texts = {f"rows#{row}": f"text {row}" for row in range(60)}
    with TwoServers() as server, pytest.raises(GatewayError) as caught:
        embed_dataset(
            list(texts.values()),
            tmp_path / "out",
            model="owner/model",
            targets=[f"openai:{server.url}"],
            workers=2,
            shard_rows=2,
            limit_rps=40.0,
        )
    assert "space" in str(caught.value) or "vectors" in str(caught.value)
    assert len(spaces_of(tmp_path / "out", texts)) <= 1
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_chain_of_several_spaces_is_pinned_once_for_all_workers(tmp_path: Path) -> None:
    texts = [f"text {row}" for row in range(40)]
    chain: dict[str, Any] = {"on_space_change": "separate", "workers": 2, "shard_rows": 5}
    with FakeOpenAI(models=None) as first, FakeOpenAI(models=None) as second:
        targets = [
            {"kind": "openai", "url": first.url, "model": "owner/first"},
            {"kind": "openai", "url": second.url, "model": "owner/second"},
        ]
        report = embed_dataset(texts, tmp_path / "out", targets=targets, **chain)
        assert report.vectors == 40
        assert first.requests
        assert not second.requests
        (tmp_path / "out" / "part-000003.parquet").unlink()
        first.close()  # a resume does not go over to the other space
        with pytest.raises(GatewayError):
            embed_dataset(texts, tmp_path / "out", targets=targets, timeout=2.0, **chain)
        assert not second.requests
    space = json.loads((tmp_path / "out" / "space.json").read_bytes())["space"]
    assert space["model"] == "owner/first"
