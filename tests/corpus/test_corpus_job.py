"""Bulk embedding: every row once whatever is killed, a resume of another job refused, another space refused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError, GatewayError, SpaceMismatch
from tests.corpus.kills import corpus, ids_of, play
from tests.servers import unit_vectors
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.processes import children
from tests.support.ways import until

if COLLECTED:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.job_settings import JobSettings
    from hf_gateway.corpus.local_engine import LocalEngine
    from hf_gateway.corpus.worker import END
    from hf_gateway.engines import cpus
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


def test_parts_have_each_row_with_its_own_vector_and_the_space(tmp_path: Path) -> None:
    report = embed_dataset(corpus(tmp_path, 1000), tmp_path / "out", targets=["hash:64"], shard_rows=300)
    assert (report.rows, report.parts, report.resumed) == (1000, 4, 0)
    assert ids_of(tmp_path / "out") == [f"d{row}" for row in range(1000)]
    table = pq.read_table(tmp_path / "out" / "part-000002.parquet")
    with EmbeddingGateway(targets=["hash:64"]) as gateway:
        assert table["vector"][5].as_py() == pytest.approx(list(gateway.embed(["text 605"]).vectors[0]))
    assert b"hf_gateway.space" in table.schema.metadata
    assert embed_dataset(tmp_path / "docs.parquet", tmp_path / "out", targets=["hash:64"], shard_rows=300).resumed == 4


def test_a_part_that_was_taken_away_is_made_again_and_until_then_the_job_is_not_done(tmp_path: Path) -> None:
    source, out = corpus(tmp_path, 30), tmp_path / "out"
    embed_dataset(source, out, targets=["hash:64"], shard_rows=10)
    (out / "part-000001.parquet").unlink()
    done_before: list[bool] = []
    told = lambda _: done_before.append((out / "_SUCCESS").exists())  # noqa: E731
    assert embed_dataset(source, out, targets=["hash:64"], shard_rows=10, on_part=told).resumed == 2
    assert done_before == [False]
    assert ids_of(out) == [f"d{row}" for row in range(30)]


def test_another_job_or_space_is_refused(tmp_path: Path) -> None:
    source, out = corpus(tmp_path, 10), tmp_path / "out"
    embed_dataset(source, out, targets=["hash:64"])
    with pytest.raises(ConfigError, match="differs in shard_rows"):
        embed_dataset(source, out, targets=["hash:64"], shard_rows=5)
    with pytest.raises(SpaceMismatch):
        embed_dataset(source, out, targets=["hash:32"])


def test_a_resume_counts_the_tokens_of_its_own_run(tmp_path: Path) -> None:
    source, out = corpus(tmp_path, 30), tmp_path / "out"
    with FakeOpenAI(models=None) as server:
        at: dict[str, Any] = {"model": "owner/model", "targets": [f"openai:{server.url}"], "shard_rows": 10}
        first = embed_dataset(source, out, **at)
        (out / "part-000001.parquet").unlink()
        again = embed_dataset(source, out, **at)
    assert first.run_tokens == first.tokens == again.tokens
    assert again.tokens is not None
    assert again.run_tokens == again.tokens // 3  # what the speed that is shown is of


def test_a_refused_resume_says_what_was_and_what_is(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source, out = corpus(tmp_path / "in", 10), tmp_path / "out"
    job: dict[str, Any] = {"targets": ["hash:64"], "shard_rows": 5}
    embed_dataset(tmp_path / "in", out, **job)
    for settings, words in (
        ({"shard_rows": 4}, r"differs in shard_rows \(5, now 4\): resume it"),
        ({"keep": ["text"]}, r'differs in keep or --columns \(\[\], now \["text"\]\)'),
        ({"form": "arrow"}, r'differs in form or --format \("parquet", now "arrow"\)'),
    ):
        with pytest.raises(ConfigError, match=words):
            embed_dataset(tmp_path / "in", out, **{**job, **settings})
    (tmp_path / "in" / "more.txt").write_text("one\n")
    with pytest.raises(ConfigError, match=r"differs in inputs \(.*more.txt is new\)"):
        embed_dataset(tmp_path / "in", out, **job)
    source.rename(tmp_path / "docs.parquet")
    with pytest.raises(ConfigError, match=r"inputs \(.*docs.parquet is gone, as 1 more are or have\)"):
        embed_dataset(tmp_path / "in", out, **job)
    source.write_bytes((tmp_path / "docs.parquet").read_bytes())
    (tmp_path / "in" / "more.txt").unlink()
    with pytest.raises(ConfigError, match=r"inputs \(.*docs.parquet has changed\)"):
        embed_dataset(tmp_path / "in", out, **job)


def test_a_plan_of_another_version_is_refused_as_one(tmp_path: Path) -> None:
    source, out = corpus(tmp_path, 10), tmp_path / "out"
    embed_dataset(source, out, targets=["hash:64"])
    plan = json.loads((out / "plan.json").read_bytes())
    shards = [{"index": 0, "file": 0, "start": 0, "rows": 10}]  # as plans were before they had columns of numbers
    for other, words in (
        ({"shards": shards}, "of another version of hf-gateway"),
        ({"digest": "0"}, "the version that planned"),
    ):
        (out / "plan.json").write_text(json.dumps({**plan, **other}))
        with pytest.raises(ConfigError, match=words):
            embed_dataset(source, out, targets=["hash:64"])


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_is_just_starting_leaves_ctrl_c_to_its_driver(tmp_path: Path) -> None:
    # Other tests may have left some, such as the one in which multiprocessing counts its resources.
    before = set(children(os.getpid()))
    worker = LocalEngine(JobSettings(out=str(tmp_path))).start_worker()
    try:
        (pid,) = set(children(os.getpid())) - before
        facts = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert (int(facts["SigBlk"], 16) | int(facts["SigIgn"], 16)) >> (signal.SIGINT - 1) & 1
    finally:
        worker.kill()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_text_that_cannot_be_embedded_fails_the_job(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", ""]}), tmp_path / "docs.parquet")
    with pytest.raises(GatewayError, match="part-000000"):
        embed_dataset(tmp_path / "docs.parquet", tmp_path / "out", targets=["hash:64"])
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_twenty_kills_lose_and_double_nothing_and_leave_no_process(tmp_path: Path) -> None:
    made = play(corpus(tmp_path, 50_000), tmp_path / "out", kills=20, shard_rows=500, seed=7)
    assert made.kills.total() == 20
    assert set(made.kills) == {"driver", "worker", "group"}
    assert ids_of(tmp_path / "out") == [f"d{row}" for row in range(50_000)]
    assert max(made.parts.values()) == 1  # what is finished is not made again
    assert max(made.repeated) <= 2  # what was in flight
    until(lambda: not made.alive())
    assert not made.late


def test_servers_of_different_spaces_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_CHECK_SPACE", "1")
    source, out = corpus(tmp_path, 100), tmp_path / "out"

    def swapped(texts: Sequence[str]) -> list[list[float]]:
        return [row[::-1] for row in unit_vectors(texts)]

    with FakeOpenAI(models=None) as first, FakeOpenAI(models=None, embed=swapped) as second:
        embed_dataset(source, out, model="owner/model", targets=[f"openai:{first.url}"], shard_rows=10)
        (out / "_SUCCESS").unlink()
        for part in list(out.glob("part-*"))[:5]:
            part.unlink()
        with pytest.raises(GatewayError):
            embed_dataset(source, out, model="owner/model", targets=[f"openai:{second.url}"], shard_rows=10)
    assert not (out / "_SUCCESS").exists()


def test_langchain_and_llamaindex_refuse_the_folder_in_another_space(tmp_path: Path) -> None:
    embed_dataset(corpus(tmp_path, 10), tmp_path / "out", targets=["hash:64"])
    HFGatewayEmbeddings(targets=["hash:64"]).lock_index(tmp_path / "out")
    HFGatewayEmbedding(targets=["hash:64"]).lock_index(tmp_path / "out")
    for other in (HFGatewayEmbeddings(targets=["hash:32"]), HFGatewayEmbedding(targets=["hash:32"])):
        with pytest.raises(SpaceMismatch):
            other.lock_index(tmp_path / "out")


def test_the_command_reads_a_chain_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "hf-gateway.toml"
    config.write_text('[chains.docs]\ntargets = ["hash:64"]\n')
    words = [
        "embed-corpus",
        str(corpus(tmp_path, 30)),
        str(tmp_path / "out"),
        "--chain",
        "docs",
        "--config",
        str(config),
    ]
    assert main([*words, "--shard-rows", "10"]) == 0
    assert "30 rows in 3 parts" in capsys.readouterr().out
    assert main([*words, "--shard-rows", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed"] == 3
    assert main([*words, "--shard-rows", "20"]) == 2
    assert "differs in shard_rows" in capsys.readouterr().err


def test_the_workers_of_a_machine_divide_its_processors(tmp_path: Path) -> None:
    job = JobSettings(out=str(tmp_path), workers=2)
    code = "from hf_gateway.corpus import worker\nfrom hf_gateway.engines import cpus\nworker.serve()\nprint(cpus.usable())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(asdict(job)) + f"\n{END}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stderr.split()[-1]) == max(1, cpus.usable() // 2)  # a worker's standard output is for answers
