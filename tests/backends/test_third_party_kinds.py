"""A kind of another package: each of its facts holds in every part of the core, none of which has heard of it."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from hf_gateway.keys.credentials import TOKEN_VARIABLES

PLUGIN = """
from hf_gateway.backends import EmbeddingAbility, KeyLevel, KeyRequirement, Kind, ProbeReport, Server
from hf_gateway.values.embedding import EmbedAnswer
from hf_gateway.values.vectors import Vectors


class Constant(EmbeddingAbility):
    def embed(self, request):
        yield from ()
        return EmbedAnswer(Vectors.of([[1.0, 2.0]] * len(request.texts)))

    def probe(self):
        yield from ()
        return ProbeReport(["constant"])


class Plain(Server):
    abilities = {"embedding": Constant}


class Wrong(Server):
    abilities = {"chat": Constant}


class Sold(Server):
    kind = Kind(
        "sold", argument="provider", hosted=True, uses_hub=True, provider="acme", default_origin="hub",
        key=KeyRequirement(KeyLevel.REQUIRED, "acme asks for one"),
        key_by_option={"public": KeyRequirement(KeyLevel.NEVER, "acme said so")},
    )
    abilities = {"embedding": Constant}
    option_names = frozenset({"access"})


class Own(Server):
    kind = Kind(
        "own", argument="url", example_url="http://own:1", free="private addresses", paid_models=("-pro",)
    )
    abilities = {"embedding": Constant}


class Inner(Server):
    kind = Kind("inner", argument="dimension", in_process=True, free="always", needs_model=True)
    abilities = {"embedding": Constant}
    option_names = frozenset({"dim"})
"""
FACTS = """
import json, os, sys
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from hf_gateway import Gateway, Target
from hf_gateway.errors import ConfigError
from hf_gateway.ledger.price_checks import payee
from hf_gateway.ledger.prices import is_own
from hf_gateway.settings.env_keys import EnvKeyRules
from hf_gateway.telemetry import enable_otel
from hf_gateway.telemetry.names import provider_of

def refused(call):
    try:
        call()
    except ConfigError as error:
        return error.message

def needs_key(target):
    return Gateway("m", [target], check_space=False).status()[0].needs_key

exporter = InMemorySpanExporter()
spans = TracerProvider()
spans.add_span_processor(SimpleSpanProcessor(exporter))
enable_otel(spans)
Gateway("m", ["plain"], check_space=False).embed(["a"])
Gateway("m", ["inner:2"], check_space=False).embed(["a"])
rules = EnvKeyRules(Path("found.toml"), Path("own.toml"), {}, {"router": "http://router", "hub": "http://hub"})
local = [Target("own", url=url, model=model) for url, model in
         (("http://127.0.0.1:9", "m"), ("https://api.example.com", "m"), ("http://127.0.0.1:9", "m-pro"))]
os.environ["HUGGINGFACE_REQUIRE_API_KEY"] = "1"
hosted = [needs_key(target) for target in ("sold:x", "plain")]
del os.environ["HUGGINGFACE_REQUIRE_API_KEY"]
print(json.dumps({
    "labels": [Target.parse(text).label for text in ("plain:a/m@main", "sold:x", "sold", "inner:2", "own:http://h:1/?k=v")],
    "provider": Target.parse("sold:x").provider,
    "dimension": dict(Target.parse("inner:2").options),
    "wrong": [refused(lambda text=text: Target.parse(text)) for text in ("own:8080", "inner:many")],
    "no url": refused(lambda: Gateway("m", ["own"])),
    "no model": refused(lambda: Gateway(None, ["inner"])),
    "no chat": refused(lambda: Gateway("m", ["plain"], task="chat")),
    "mixed up": refused(lambda: Gateway("m", ["wrong"], task="chat")),
    "keys": [needs_key("plain"), needs_key("sold:x"), needs_key(Target("sold", options={"access": "public"}))],
    "hosted": hosted,
    "hint": [Gateway("m", [kind], check_space=False).status()[0].fix for kind in ("plain", "sold")],
    "free": [is_own(target) for target in (Target("plain"), Target("sold"), Target("inner"), *local)],
    "payee": [payee("sold:x"), refused(lambda: payee("own"))],
    "providers": [provider_of(Target("sold")), provider_of(Target("plain"))],
    "spans": sorted({span.kind.name for span in exporter.get_finished_spans() if span.name == "hf_gateway.attempt"}),
    "sent to": [rules.refusal("KEY", [Target(kind)]) for kind in ("sold", "plain")],
}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process that has the plugin installed."""
    site = tmp_path_factory.mktemp("site")
    (site / "plugin.py").write_text(PLUGIN)
    metadata = site / "plugin-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    kinds = "".join(f"{name.lower()} = plugin:{name}\n" for name in ("Plain", "Wrong", "Sold", "Own", "Inner"))
    (metadata / "entry_points.txt").write_text(f"[hf_gateway.backends]\n{kinds}")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def facts(environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_it_is_parsed_and_labelled_by_what_its_argument_means(facts: dict[str, Any]) -> None:
    assert facts["labels"] == ["plain:a/m@main", "sold:x", "sold", "inner:2", "own:http://h:1"]
    assert (facts["provider"], facts["dimension"]) == ("x", {"dim": 2})
    assert facts["wrong"][0] == "target 'own' needs a whole URL, such as 'own:http://localhost:8000'"
    assert facts["wrong"][1] == "target 'inner': the argument is a dimension, such as 'inner:512'"


def test_what_it_needs_is_asked_for_when_the_chain_is_built(facts: dict[str, Any]) -> None:
    assert facts["no url"] == "target 'own' needs its URL, such as 'own:http://own:1'"
    assert facts["no model"] == "target 'inner' needs a model: pass model=, or write 'inner:<model>'"


def test_its_key_follows_the_policy(facts: dict[str, Any]) -> None:
    assert facts["keys"] == ["optional", "required", "never"]
    assert facts["hosted"] == ["required", "optional"]
    assert facts["hint"][0] is None
    assert facts["hint"][1].startswith("set HF_TOKEN")
    assert facts["hint"][1].endswith("or run it locally: `targets=['local']`")


def test_a_found_config_file_is_told_where_its_key_would_go(facts: dict[str, Any]) -> None:
    assert "sent to http://hub:80;" in facts["sent to"][0]
    assert "sent to plain;" in facts["sent to"][1]


def test_it_is_free_where_it_says_so_and_paid_under_its_label(facts: dict[str, Any]) -> None:
    assert facts["free"] == [False, False, True, True, False, False]
    assert facts["payee"] == ["sold:x", "'own' needs its URL, such as 'own:https://api.example.com'"]


def test_metrics_and_traces_name_its_provider_and_know_what_stays_in_this_process(facts: dict[str, Any]) -> None:
    assert facts["providers"] == ["acme", "plain"]
    assert facts["spans"] == ["CLIENT", "INTERNAL"]


@pytest.mark.parametrize(("kind", "reachable"), [("plain", None), ("sold", False)])
def test_doctor_asks_the_hub_where_the_kind_has_to_do_with_it(
    kind: str, reachable: bool | None, environment: dict[str, str]
) -> None:
    without_key = {name: value for name, value in environment.items() if name not in TOKEN_VARIABLES}
    without_key |= {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "hf_gateway", "doctor", "--json", "--model", "a/m", "--targets", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_key)
    assert json.loads(done.stdout)["hub"]["reachable"] is reachable


def test_a_task_without_an_ability_and_an_ability_of_another_task_are_refused(facts: dict[str, Any]) -> None:
    assert "does not support chat; it is for embedding. Kinds of target for chat: " in facts["no chat"]
    assert facts["mixed up"] == "what Wrong has for chat is not derived from ChatAbility"
