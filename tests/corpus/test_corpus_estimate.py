"""`--dry-run`, what is shown during a job, and how it is interrupted."""

import json
import os
import signal
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError
from tests.corpus.kills import COMMAND, corpus
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.estimate import estimate_dataset

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CUT: dict[str, Any] = {"shard_rows": 100, "shard_bytes": 10**7}


def skewed(folder: Path, rows: int, *, distinct: bool = False) -> Path:
    file = folder / "docs.jsonl"
    beginnings = [f"{row} a few more " if distinct else "" for row in range(rows)]
    most = 6 if distinct else 40
    texts = [beginning + "word " * (1 + (row * 7919) % most) for row, beginning in enumerate(beginnings)]
    lines = [json.dumps({"id": row, "text": text}) for row, text in enumerate(texts)]
    file.write_text("\n".join(lines))
    return file


def test_tokens_of_a_sample_are_within_five_percent_of_those_used(tmp_path: Path) -> None:
    source = skewed(tmp_path, 300, distinct=True)
    guess = estimate_dataset(source, model=MINILM, targets=["local"], sample_rows=150, **CUT)
    used = embed_dataset(source, tmp_path / "out", model=MINILM, targets=["local"], **CUT)
    assert used.tokens is not None
    assert abs(guess.tokens - used.tokens) <= 0.05 * used.tokens
    assert 0 < guess.tokens_error < 1
    assert (guess.rows, guess.parts, guess.vectors, guess.counted) == (300, 3, 300, "embedded")
    assert guess.cost_usd == 0
    assert guess.seconds is not None
    assert guess.seconds > 0
    size = sum(file.stat().st_size for file in (tmp_path / "out").glob("part-*"))
    assert guess.disk_bytes == pytest.approx(size, rel=0.25)


def test_a_hosted_target_is_sent_nothing_and_priced_by_its_tokens(tmp_path: Path) -> None:
    source = skewed(tmp_path, 300)
    (tmp_path / "hf-gateway.toml").write_text(
        f'[prices."{MINILM}"]\ntask = "embedding"\nprovider = "openai:https://api.example.com/v1"\ninput = 0.5\n'
    )
    config = str(tmp_path / "hf-gateway.toml")
    with FakeOpenAI(models=None) as server:
        own = estimate_dataset(source, model=MINILM, targets=[f"openai:{server.url}"], **CUT)
        assert not server.requests
    tokens = sum(3 + (row * 7919) % 40 for row in range(300))
    assert (own.tokens, own.tokens_error, own.counted) == (tokens, 0.0, "tokenizer")
    assert own.cost_usd == 0
    assert own.seconds is None
    there = ["openai:https://api.example.com/v1"]
    priced = estimate_dataset(source, model=MINILM, targets=there, config=config, **CUT)
    assert priced.cost_usd == Decimal("0.5") * tokens / 10**6
    assert estimate_dataset(source, model="owner/unknown", targets=there, config=config, **CUT).cost_usd is None


def test_the_command_estimates_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed-corpus", str(skewed(tmp_path, 50)), str(tmp_path / "out"), "--targets", "hash:64", "--dry-run"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "50 rows" in printed
    assert "0 USD" in printed
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 50
    assert not (tmp_path / "out").exists()


def test_an_estimate_since_an_earlier_job_counts_new_texts_alone(tmp_path: Path) -> None:
    texts = [f"text number {row}" for row in range(30)]
    at: dict[str, Any] = {"model": MINILM, "shard_rows": 10}
    with FakeOpenAI(models=None) as server:
        embed_dataset(texts[:25], tmp_path / "old", targets=[f"openai:{server.url}"], **at)
        server.requests.clear()
        found = estimate_dataset(
            texts, since=tmp_path / "old", shard_bytes=10**6, targets=[f"openai:{server.url}"], **at
        )
        assert not server.requests
        whole = estimate_dataset(texts, shard_bytes=10**6, targets=[f"openai:{server.url}"], **at)
    assert (found.rows, found.vectors) == (30, 30)
    assert found.tokens * 6 == whole.tokens > 0
    with pytest.raises(ConfigError, match="no finished job"):
        estimate_dataset(texts, since=tmp_path / "none", shard_rows=10, shard_bytes=10**6, targets=["hash:64"])


def test_an_estimate_refuses_what_the_job_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed-corpus", str(skewed(tmp_path, 5)), str(tmp_path / "out"), "--targets", "hash:64", "--dry-run"]
    for option, value, said in (
        ("--workers", "-3", "at least 1"),
        ("--shard-rows", "0", "at least 1"),
        ("--since", str(tmp_path / "none"), "no finished job"),
    ):
        assert main([*words, option, value]) == 2
        assert said in capsys.readouterr().err


def test_ctrl_c_keeps_the_finished_parts_and_says_how_to_go_on(tmp_path: Path) -> None:
    source, out = corpus(tmp_path, 20_000), tmp_path / "out"
    command = [
        *COMMAND,
        "--shard-rows",
        "4",
        str(source),
        str(out),
    ]  # thousands of parts, so that it does not end first
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert job.stderr is not None
    first = job.stderr.readline()
    assert json.loads(first)["of"] == 20_000
    os.kill(job.pid, signal.SIGINT)
    told = job.stderr.read()
    assert job.wait() == 130
    assert "run the same command again to go on" in told
    assert str(out) in told
    records = (out / "parts.jsonl").read_text().split()
    assert records
    assert len(list(out.glob("part-*.parquet"))) >= 1
    assert not (out / "_SUCCESS").exists()
