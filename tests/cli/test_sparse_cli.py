"""`hf-gateway embed --sparse`, and the commands that look at such chains."""

import json
from pathlib import Path

import pytest

from hf_gateway import SparseGateway
from hf_gateway.cli import main
from tests.servers.tei import word_weights
from tests.support.sparse import MODEL, PATH, chain, splade, weights


def test_embed_prints_indexes_and_values_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    with splade() as server:
        arguments = ["embed", "--sparse", "--model", MODEL, "--targets", *chain(server), "b a a", "c"]
        assert main(arguments) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["text"] for row in rows] == ["b a a", "c"]
    assert [dict(zip(row["indices"], row["values"], strict=True)) for row in rows] == weights(["b a a", "c"])
    assert "2 texts by tei:" in printed.err
    assert "8 tokens" in printed.err


def test_embed_needs_no_model_for_bm25_and_takes_the_role(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--sparse", "--targets", "bm25", "--role", "query", "one two"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "--sparse", "--targets", "hash", "x"], "does not support sparse"),
        (["embed", "--targets", "bm25", "x"], "does not support embedding"),
        (["embed", "--sparse", "x"], "needs a model"),
        (["embed", "--sparse", "--targets", "bm52", "x"], "did you mean 'bm25'"),
    ],
)
def test_what_makes_no_sense_exits_with_two_and_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed


def test_a_chain_of_the_config_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hf-gateway.toml").write_text('[chains.words]\ntask = "sparse"\ntargets = ["bm25"]\n')
    assert main(["embed", "--sparse", "--chain", "words", "x"]) == 0
    assert main(["doctor", "--chain", "words"]) == 0
    assert "hf-gateway/bm25-v1" in capsys.readouterr().out
    assert main(["verify", "--sparse", "--chain", "words"]) == 0


def test_doctor_asks_a_server_for_its_sparse_model(capsys: pytest.CaptureFixture[str]) -> None:
    with splade() as server, splade(pooling="mean") as other:
        targets = ",".join(chain(server, other))
        main(["doctor", "--task", "sparse", "--model", MODEL, "--targets", targets])
        assert server.count(PATH) == other.count(PATH) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert MODEL in printed
    assert "--pooling splade" in printed


def test_verify_measures_sparse_chains_and_accepts_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    def other(texts: list[str]) -> object:
        return word_weights([text[::-1] for text in texts])

    with splade() as server, splade(sparse=other) as wrong:
        SparseGateway(MODEL, chain(server), check_space=True).embed(["x"])
        common = ["--sparse", "--model", MODEL, "--targets", ",".join(chain(server, wrong))]
        assert main(["verify", *common]) == 1
        assert "--sparse" in capsys.readouterr().out
        assert main(["verify", *common, "--accept", *chain(wrong)]) == 0
        accepted = SparseGateway(MODEL, chain(wrong), check_space=True)
        assert accepted.embed(["x"]).served_by == tuple(chain(wrong))


def test_usage_counts_sparse_calls_by_their_task(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hf_gateway import ledger

    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    book = ledger.enable(url)
    try:
        with SparseGateway(targets=["bm25"]) as gateway:
            gateway.embed(["x"])
        assert book.flush()
    finally:
        ledger.disable()
    monkeypatch.setenv("HF_GATEWAY_LEDGER", url)
    assert main(["usage", "--by", "task"]) == 0
    assert "sparse" in capsys.readouterr().out
