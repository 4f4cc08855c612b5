"""Which target needs a key, and what `doctor` says of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.cli import main
from hf_gateway.keys.policy import KeyPolicyOverrides, requirement
from hf_gateway.values.kinds import KeyLevel
from tests.servers.loopback import dead_url
from tests.servers.ollama import FakeOllama
from tests.servers.router import FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI
from tests.support.doors import door
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import HFGatewayEmbeddings


MINILM = "sentence-transformers/all-MiniLM-L6-v2"
KEY = "hf_SuperSecretValue0123456789"

NEVER, OPTIONAL, REQUIRED = KeyLevel.NEVER, KeyLevel.OPTIONAL, KeyLevel.REQUIRED


@pytest.mark.parametrize(
    ("target", "access", "level"),
    [
        ("local", "public", NEVER),
        ("local", "unknown", NEVER),
        ("local", "gated", REQUIRED),
        ("local", "private", REQUIRED),
        ("hf", "public", REQUIRED),
        ("hf:scaleway", "gated", REQUIRED),
        ("endpoint:https://x.endpoints.huggingface.cloud", "public", OPTIONAL),
        (
            Target("endpoint", url="https://x.endpoints.huggingface.cloud", options={"access": "public"}),
            "public",
            NEVER,
        ),
        ("tei:http://tei:8080", "public", OPTIONAL),
        ("openai:http://vllm:8000", "public", OPTIONAL),
        ("ollama:all-minilm", "public", NEVER),
        ("hash", "public", NEVER),
        ("thirdparty:x", "public", OPTIONAL),
    ],
)
def test_the_requirement_follows_kind_origin_and_access(target: str | Target, access: str, level: KeyLevel) -> None:
    found = requirement(Target.of(target), access)  # type: ignore[arg-type]
    assert found.level is level
    assert len(found.reason) > 20


@pytest.mark.parametrize(
    ("target", "level"),
    [
        ("hf", REQUIRED),
        ("endpoint:https://x", REQUIRED),
        ("local", NEVER),
        ("tei:http://t", OPTIONAL),
        ("ollama:m", NEVER),
        ("hash", NEVER),
    ],
)
def test_the_house_rule_concerns_hosted_kinds_only(target: str, level: KeyLevel) -> None:
    assert requirement(Target.of(target), rules=KeyPolicyOverrides(hosted=True)).level is level


def test_the_config_file_can_set_a_rule_for_one_model(tmp_path: Path) -> None:
    (tmp_path / "hf-gateway.toml").write_text('[keys.models]\n"org/model" = "required"\n')
    with pytest.raises(errors.KeyMissing, match="config file says so for org/model"):
        Gateway("org/model", [f"tei:{dead_url()}"]).embed(["x"])


def test_the_house_rule_from_the_environment_refuses_a_hosted_call_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HUGGINGFACE_REQUIRE_API_KEY", "true")
    with FakeTEI(model_id="m") as server:
        with pytest.raises(errors.KeyMissing, match="HUGGINGFACE_REQUIRE_API_KEY"):
            Gateway("m", [f"endpoint:{server.url}"]).embed(["x"])
        Gateway("m", [f"tei:{server.url}"]).embed(["x"])
        assert server.count("/") == 0


@pytest.mark.parametrize("name", ["HUGGINGFACE_REQUIRE_API_KEY", "HF_GATEWAY_CHECK_SPACE"])
def test_a_misspelt_switch_is_refused_and_not_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for word in ("enabled", "treu"):
        monkeypatch.setenv(name, word)
        with pytest.raises(errors.ConfigError, match=f"{name} is one of 1, on, yes, true, or one of 0, off, no, false"):
            Gateway(targets=["hash"])
    for word in ("", " ", "0", "Off", "no", "FALSE", "1", " On", "yes", "true"):
        monkeypatch.setenv(name, word)
        Gateway(targets=["hash"]).close()


# The case that started this project.


@pytest.mark.parametrize("name", ["HFGatewayEmbeddings", "HFGatewayEmbedding"])
def test_a_local_minilm_validates_with_no_key_anywhere(name: str) -> None:
    embedder: Any = door(name)(model="all-MiniLM-L6-v2")
    (status,) = embedder.status()
    assert (status.ready, status.needs_key, status.key_source, status.fix) == (True, "never", None, None)
    (checked,) = embedder.gateway.check()
    assert checked.answers
    assert list(checked.report.serves) == [MINILM]


def test_the_same_model_hosted_without_a_key_is_refused_before_any_request_and_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeRouter() as router, FakeHub() as hub:
        monkeypatch.setattr("hf_gateway.settings.config_file.ROUTER", router.url)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("hf_gateway.keys.policy.is_hugging_face", lambda _url: True)
        with pytest.raises(errors.KeyMissing) as caught:
            HFGatewayEmbeddings(model="all-MiniLM-L6-v2", targets=["hf"]).embed_query("x")
        assert router.requests == hub.requests == []
    for part in ("a required key is missing", "HF_TOKEN", "api_key=", "run it locally: `targets=['local']`"):
        assert part in str(caught.value)


def test_running_it_locally_is_a_way_out_only_of_a_hosted_target_that_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "hf-gateway.toml").write_text('[keys.models]\n"org/model" = "required"\n')
    for targets, advised in ((["hf"], True), (["hf", "local"], False), (["tei:http://tei:8080"], False)):
        fix = Gateway("org/model", targets).status()[0].fix
        assert fix is not None
        assert ("run it locally" in fix) is advised, targets


def test_a_chain_skips_a_target_without_its_key_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with FakeTEI() as tei:
        gateway = Gateway(MINILM, ["hf", f"tei:{tei.url}"])
        result = gateway.embed(["x"])
    assert [(attempt.target, attempt.outcome) for attempt in result.attempts] == [
        ("hf", "skipped"),
        (f"tei:{tei.url}", "served"),
    ]
    assert "KeyMissing" in caplog.text


# doctor


def test_doctor_tells_of_every_target_of_every_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "mine")
    monkeypatch.setenv("HF_GATEWAY_CONFIG", "hf-gateway.toml")
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    with FakeTEI(api_key="mine") as tei, FakeOllama({"all-minilm": {"embedding_length": 384}}) as ollama:
        down = dead_url()
        (tmp_path / "hf-gateway.toml").write_text(
            f"""
[chains.docs]
model = "all-MiniLM-L6-v2"
targets = ["hf", "tei:{tei.url}", {{kind = "tei", url = "{tei.url}", credential = "env:MY_KEY"}}, "local"]
[chains.broken]
model = "all-MiniLM-L6-v2"
targets = ["openai:{down}", {{kind = "ollama", url = "{ollama.url}", model = "all-minilm"}}]
"""
        )
        code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    docs, broken = report["chains"]
    assert [(each["target"].partition(":")[0], each["needs_key"], each["answers"]) for each in docs["targets"]] == [
        ("hf", "required", False),
        ("tei", "optional", False),
        ("tei", "optional", True),
        ("local", "never", True),
    ]
    assert docs["targets"][0]["fix"].startswith("set HF_TOKEN")
    assert "401" in docs["targets"][1]["fix"]
    assert (
        docs["targets"][2]["key_source"] == "the target's own credential"
        or "MY_KEY" in docs["targets"][2]["key_source"]
    )
    assert docs["targets"][2]["report"]["serves"] == [MINILM]
    assert [each["answers"] for each in broken["targets"]] == [False, True]
    assert "is the server running" in broken["targets"][0]["fix"]
    assert all(each["key_reason"] for each in docs["targets"])


def test_doctor_never_prints_a_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    with FakeHub() as hub:
        monkeypatch.setattr("hf_gateway.backends.hf.hub_url", lambda _environment: hub.url)
        for arguments in (["--json"], []):
            assert main(["doctor", "--model", MINILM, "--targets", "hf", *arguments]) == 0
        assert all("authorization" not in request.headers for request in hub.requests)
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    assert "the environment variable HF_TOKEN" in printed.out


def test_doctor_fails_when_no_target_of_a_chain_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "m", "--targets", f"openai:{dead_url()}"]) == 1
    assert "no target answers" in capsys.readouterr().out


@pytest.mark.parametrize(("gated", "level", "answers"), [(False, "never", True), ("auto", "required", False)])
def test_doctor_asks_the_hub_about_a_local_model_that_is_not_here(
    gated: Any, level: str, answers: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub({"org/model": HubModel(gated=gated)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        main(["doctor", "--model", "org/model", "--targets", "local", "--json"])
        assert not [request for request in hub.requests if "/resolve/" in request.path]
    (target,) = json.loads(capsys.readouterr().out)["chains"][0]["targets"]
    assert (target["needs_key"], target["answers"]) == (level, answers)
    if gated:
        assert "set HF_TOKEN" in target["fix"]
        assert "it is gated and must be downloaded first" in target["key_reason"]


def test_doctor_says_when_a_local_model_is_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main(["doctor", "--model", "org/nothing", "--targets", "local"]) == 1
    assert "not on this machine, and not on the Hub" in capsys.readouterr().out


def test_doctor_without_any_setting_looks_at_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for part in ("local", "never", "the model runs in this process", "works"):
        assert part in printed
