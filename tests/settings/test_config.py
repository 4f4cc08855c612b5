"""hf-gateway.toml and the environment."""

import pickle
from pathlib import Path

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError
from hf_gateway.settings.config_file import hub_url, router_url
from tests.support.doors import door
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


GOOD = """\
[chains.docs]
model = "org/model"
targets = ["tei:http://tei:8080", { kind = "openai", url = "http://vllm:8000", credential = "env:VLLM_KEY" }, "local"]
dimensions = 128
timeout = 12.5
"""


@pytest.mark.parametrize("name", ["Gateway", "HFGatewayEmbeddings", "HFGatewayEmbedding"])
def test_one_chain_serves_both_frameworks(name: str, tmp_path: Path) -> None:
    (tmp_path / "hf-gateway.toml").write_text(GOOD)
    made = door(name).from_config("docs")
    gateway = made if isinstance(made, Gateway) else made.gateway
    assert [target.label for target in gateway.targets] == [
        "tei:http://tei:8080",
        "openai:http://vllm:8000",
        "local:org/model",
    ]
    assert (gateway.settings.dimensions, gateway.settings.timeout) == (128, 12.5)
    changed = door(name).from_config("docs", dimensions=64)
    assert (changed if isinstance(changed, Gateway) else changed.gateway).settings.dimensions == 64


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[chains.docs\nmodel = 1", 1, "not TOML"),
        ("[chains.docs]\nmodel = ", 2, "not TOML"),
        ("[chains.docs]\nmodel = 'm'\nmodle = 'x'\n", 3, "did you mean 'model'"),
        ("[chains.docs]\nmodel = 'm'\n\ndimensions = 'many'\n", 4, "dimensions"),
        ("[chains.docs]\nmodel = 'm'\ntargets = ['local', 'tei:nowhere']\n", 3, "needs a whole URL"),
        ("# a comment\n\n[chain.docs]\nmodel = 'm'\n", 3, "did you mean 'chains'"),
        ("[keys]\nrequire_for_hostd = true\n[chains.docs]\nmodel='m'\n", 2, "did you mean 'require_for_hosted'"),
        ("[keys]\nrequire_for_hosted = 'yes'\n[chains.docs]\nmodel='m'\n", 2, "is true or false"),
        ("[keys.models]\n'a/b' = 'sometimes'\n[chains.docs]\nmodel='m'\n", 2, "is not a level"),
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "hf-gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        Gateway.from_config("docs", path)
    assert f"hf-gateway.toml:{line}:" in str(caught.value)


@pytest.mark.parametrize("text", ["chains = 5", "[chains]\ndocs = 5"])
def test_a_chain_that_is_no_section_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hf-gateway.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"hf-gateway\.toml:\d: .* is a section"):
        Gateway.from_config("docs")


@pytest.mark.parametrize("name", ["Gateway", "HFGatewayEmbeddings", "HFGatewayEmbedding"])
def test_the_key_rules_of_a_file_hold_for_its_chains_wherever_it_lies(name: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = elsewhere / "rules.toml"
    path.write_text(
        '[chains.docs]\nmodel = "org/model"\ntargets = ["tei:http://t"]\n[keys.models]\n"org/model" = "required"\n'
    )
    made = door(name).from_config("docs", path)
    (status,) = made.status()
    assert (status.needs_key, status.ready) == ("required", False)
    (again,) = pickle.loads(pickle.dumps(made)).status()
    assert again.needs_key == "required"


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hf-gateway.toml"
    path.write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(ConfigError, match=r"hf-gateway\.toml: cannot be read"):
        Gateway.from_config("docs", path)


def test_a_missing_file_or_chain_says_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"there is no hf-gateway\.toml here"):
        Gateway.from_config("docs")
    (tmp_path / "hf-gateway.toml").write_text(GOOD)
    with pytest.raises(ConfigError, match="did you mean 'docs'"):
        Gateway.from_config("doc")
    monkeypatch.setenv("HF_GATEWAY_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(ConfigError, match="HF_GATEWAY_CONFIG names it"):
        Gateway.from_config("docs")


def test_the_file_may_lie_in_the_users_configuration_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    folder = tmp_path / "xdg" / "hf-gateway"
    folder.mkdir(parents=True)
    (folder / "hf-gateway.toml").write_text(GOOD)
    assert Gateway.from_config("docs").model == "org/model"


def test_the_environment_names_model_and_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_EMBED_MODEL", "org/model")
    monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "tei:http://tei:8080, local")
    for gateway in (Gateway(), HFGatewayEmbeddings().gateway, HFGatewayEmbedding().gateway):
        assert [target.label for target in gateway.targets] == ["tei:http://tei:8080", "local:org/model"]
    assert HFGatewayEmbedding().to_dict()["targets"][0]["url"] == "http://tei:8080"


@pytest.mark.parametrize(
    ("environment", "router", "hub"),
    [
        ({}, "https://router.huggingface.co", "https://huggingface.co"),
        ({"HF_ENDPOINT": "https://hub.mirror.example"}, "https://router.huggingface.co", "https://hub.mirror.example"),
        ({"HUGGINGFACE_BASE_URL": "http://proxy:1"}, "http://proxy:1", "https://huggingface.co"),
        (
            {"HF_ENDPOINT": "https://api-inference.huggingface.co/models"},
            "https://router.huggingface.co",
            "https://huggingface.co",
        ),
        (
            {"HUGGINGFACE_BASE_URL": "https://api-inference.huggingface.co"},
            "https://router.huggingface.co",
            "https://huggingface.co",
        ),
        ({"HF_ENDPOINT": "http://my-inference:8080/v1"}, "http://my-inference:8080/v1", "https://huggingface.co"),
    ],
    ids=["nothing", "a mirror of the Hub", "a proxy", "an older guide", "the dead host", "an inference server"],
)
def test_where_hosted_inference_and_the_hub_are(environment: dict[str, str], router: str, hub: str) -> None:
    assert (router_url(environment), hub_url(environment)) == (router, hub)


def test_the_dead_host_is_replaced_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    router_url({"HUGGINGFACE_BASE_URL": "https://api-inference.huggingface.co/models"})
    assert "no longer answers; calling https://router.huggingface.co instead" in caplog.text


def test_a_copy_with_changes_is_a_chain_of_its_own() -> None:
    for embedder in (HFGatewayEmbeddings(targets=["hash:64"]), HFGatewayEmbedding(targets=["hash:64"])):
        copy = embedder.model_copy(update={"targets": ["hash:32"]})
        assert copy.gateway.embed(["x"]).vectors.dim == 32
        assert embedder.gateway.embed(["x"]).vectors.dim == 64
