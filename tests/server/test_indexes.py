"""The indexes of `[server.indexes]`: opened at the start, by a chain of their space, or refused."""

from pathlib import Path

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError
from hf_gateway.retrieval.files import Passage
from hf_gateway.retrieval.index import make_index
from tests.support.gateway_server import chat_chain, gateway_server

INDEXED = '[server.indexes]\nmanual = "manual"\n'


def index(folder: Path, targets: str) -> None:
    with Gateway(targets=targets) as gateway:
        make_index(folder, [Passage("a.md", "zebras"), Passage("b.md", "ferries")], gateway)


def test_an_index_is_opened_by_the_chain_of_its_space(tmp_path: Path) -> None:
    index(tmp_path / "manual", "hash:48")
    config = '[chains.a]\ntargets = ["hash:32"]\n[chains.b]\ntargets = ["hash:48"]\n' + INDEXED
    with gateway_server(config, folder=tmp_path) as server:
        opened = server.state.chains.indexes["manual"]
    assert (opened.chain.name, len(opened.index)) == ("b", 2)


@pytest.mark.parametrize(
    ("chains", "made_by", "words"),
    [
        (
            '[chains.docs]\ntargets = ["hash:32"]\n',
            "hash:48",
            r"\[server.indexes\] manual: the index in .* was made with",
        ),
        ('[chains.docs]\ntargets = ["hash:32"]\n', None, r"\[server.indexes\] manual: there is no index in"),
        (chat_chain("http://127.0.0.1:9"), "hash:48", r"\[server.indexes\] manual: .*no chain for embeddings"),
    ],
    ids=["another space", "no index", "no chain"],
)
def test_an_index_that_cannot_be_searched_does_not_start(
    tmp_path: Path, chains: str, made_by: str | None, words: str
) -> None:
    if made_by is not None:
        index(tmp_path / "manual", made_by)
    with pytest.raises(ConfigError, match=words), gateway_server(chains + INDEXED, folder=tmp_path):
        pass


async def test_a_reload_with_an_index_of_another_space_changes_nothing(tmp_path: Path) -> None:
    index(tmp_path / "manual", "hash:48")
    chain = '[chains.docs]\ntargets = ["hash:48"]\n'
    with gateway_server(chain + INDEXED, folder=tmp_path) as server:
        before = server.state.chains
        (tmp_path / "hf-gateway.toml").write_text(chain.replace("48", "32") + INDEXED)
        with pytest.raises(ConfigError, match="was made with"):
            await server.state.reloader.reload()
        assert server.state.chains is before
