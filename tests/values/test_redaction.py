"""A secret that stands in the wrong place: in a URL, a proxy, a target's short form. No error, log or printed text repeats it."""

import asyncio
import contextlib
import io
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hf_gateway import Gateway, Target
from hf_gateway.cli import main
from hf_gateway.errors import ConfigError, GatewayError, ServerError, visible
from hf_gateway.values.redaction import names_key, quoted, shown_url
from hf_gateway.values.secret import Secret
from tests.servers.loopback import dead_url
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


SECRET = "fake0Qz7that0is0nowhere"


def everything(error: BaseException | None) -> str:
    """What an error and all that lies behind it say, to whoever looks: text, repr, fields, traceback."""
    said = "".join(traceback.format_exception(error)) if error else ""
    while error is not None:
        said += f"{error} {error!r} {vars(error)}\n"
        error = error.__cause__ or error.__context__
    return said


@contextlib.contextmanager
def watched(*secrets: str) -> Iterator[Callable[[Any], None]]:
    """Collect logs, output and what is given to the function; none of it may have a secret in it."""
    said, records = io.StringIO(), logging.StreamHandler(log := io.StringIO())
    root = logging.getLogger("hf_gateway")
    level = root.level
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield (
                lambda thing: said.write(everything(thing) if isinstance(thing, BaseException) else str(thing)) and None
            )
    finally:
        root.removeHandler(records)
        root.setLevel(level)
    for secret in secrets:
        assert secret not in said.getvalue() + log.getvalue()


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except GatewayError as error:
        return error


def chain(target: Any, **options: Any) -> Gateway:
    return Gateway("m", [target], max_retries=0, timeout=5, **options)


WAYS: dict[str, Callable[[str], Any]] = {
    "a target": lambda url: Target("openai", url=url),
    "a short form": lambda url: chain(f"openai:{url}"),
    "LangChain": lambda url: HFGatewayEmbeddings(model="m", targets=[f"tei:{url}"]),
    "LlamaIndex": lambda url: HFGatewayEmbedding(model_name="m", targets=[f"tei:{url}"]),
    "chat": lambda url: Gateway("m", [f"ollama:{url}"], task="chat"),
    "the command line": lambda url: main(["doctor", "--json", "--model", "m", "--targets", f"openai:{url}"]),
    "an origin": lambda url: main(["whoami", "--json", "--origin", url]),
}

unsafe = st.text("/?#@: %&=;[]\\", max_size=2)
secrets = st.builds(lambda before, after: f"{before}{SECRET}{after}", unsafe, unsafe)
places = st.sampled_from(["user", "password", "both", "parameters", "query", "key in the query", "flag", "fragment"])


def url_with(place: str, secret: str, base: str = "http://127.0.0.1:9") -> str:
    scheme, _, rest = base.partition("://")
    match place:
        case "user":
            return f"{scheme}://{secret}@{rest}/v1"
        case "password":
            return f"{scheme}://ada:{secret}@{rest}/v1"
        case "both":
            return f"{scheme}://{secret}:{secret}@{rest}"
        case "parameters":
            return f"{base}/v1;{SECRET}"
        case "query":
            return f"{base}/v1?a={SECRET}"
        case "key in the query":
            return f"{base}/v1?a=1&api_key={SECRET}"
        case "flag":
            return f"{base}/v1?{SECRET}"
    return f"{base}/v1#{SECRET}"


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places, secrets)
@example("password", f"pa/{SECRET}")
@example("password", f"pa?{SECRET}")
@example("password", f"pa#{SECRET}")
@example("password", f"12/{SECRET}")
@example("user", f"{SECRET}@x")
def test_no_part_of_a_url_that_may_be_a_secret_is_shown(way: str, place: str, secret: str) -> None:
    with watched(SECRET) as tell:
        made = outcome(lambda: WAYS[way](url_with(place, secret)))
        tell(made)
        tell(repr(made))
        gateway = getattr(made, "gateway", made)
        if isinstance(gateway, Gateway):
            tell(gateway.status())
            tell([target.label for target in gateway.targets])


@pytest.mark.parametrize("place", ["parameters", "query", "flag"])
@pytest.mark.parametrize("form", ["embed", "aembed"])
def test_the_error_of_a_call_names_the_server_and_nothing_behind_it(place: str, form: str) -> None:
    target = f"openai:{url_with(place, SECRET, base := dead_url())}"
    with watched(SECRET) as tell:
        made = outcome(
            lambda: chain(target).embed(["x"]) if form == "embed" else asyncio.run(chain(target).aembed(["x"]))
        )
        tell(made)
    assert isinstance(made, GatewayError)
    assert f"openai:{base}/v1" in str(made)


@pytest.mark.parametrize("place", ["user", "password", "both", "parameters", "query", "key in the query", "fragment"])
@pytest.mark.parametrize("name", ["HUGGINGFACE_BASE_URL", "HF_ENDPOINT", "OLLAMA_HOST"])
@pytest.mark.parametrize("bare", [False, True], ids=["", "without a scheme"])
def test_an_address_of_the_environment_is_not_repeated_with_its_secret(
    name: str, place: str, bare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret in (SECRET, f"pa/{SECRET}", f"pa?{SECRET}"):
        url = url_with(place, secret)
        monkeypatch.setenv(name, url.partition("://")[2] if bare else url)
        with watched(SECRET) as tell:
            kind = "ollama" if name == "OLLAMA_HOST" else "hf"
            tell(outcome(lambda kind=kind: chain(kind, api_key="hf_fake" if kind == "hf" else None).embed(["x"])))
            tell(outcome(lambda kind=kind: Gateway("m", [kind], task="chat").chat("x", timeout=1)))
            tell(outcome(lambda: main(["doctor", "--json", "--model", "m", "--targets", "hf,ollama"])))


@pytest.mark.parametrize(
    "proxy", [f"foo://{SECRET}@x", f"http://u:pa/{SECRET}@x", f"u:{SECRET}", f"socks5://{SECRET}@x"]
)
@pytest.mark.parametrize("form", ["embed", "aembed"])
def test_a_proxy_that_cannot_be_used_is_the_settings_fault_and_is_not_repeated(
    proxy: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    gateway = chain("openai:http://example.invalid:80")
    with watched(SECRET) as tell:
        made = outcome(lambda: gateway.embed(["x"]) if form == "embed" else asyncio.run(gateway.aembed(["x"])))
        tell(made)
    assert isinstance(made, ConfigError)
    assert "HTTP_PROXY" in str(made)


@pytest.mark.parametrize("task", ["embedding", "chat"])
@pytest.mark.parametrize(
    "target",
    [
        f"openai:{SECRET}",
        f"tei:{SECRET}",
        f"hf:{SECRET}",
        f"hash:{SECRET}",
        f"openai://u:{SECRET}@h/",
        f"{SECRET}",
        f"hf_{SECRET}:x",
        f"sk-{SECRET}".lower(),
        f"local:org/model@{SECRET}..",
        {"kind": "hf", "provider": SECRET},
        {"kind": SECRET},
    ],
    ids=str,
)
def test_a_key_in_the_place_of_something_else_is_not_repeated(target: Any, task: Any) -> None:
    with watched(SECRET, SECRET.lower()) as tell:
        made = outcome(lambda: Gateway("m", [target], task=task))
        tell(made)
    assert isinstance(made, ConfigError)


FIELDS = ("kind", "model", "url", "revision", "provider", "credential", "options", "space")
WRITTEN = {"a text": f'"{SECRET} x"', "a list": f'["{SECRET}"]', "a table": f'{{ a = "{SECRET}" }}'}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("place", ["task", "timeout", "targets", "chain", "level", "keys", *FIELDS])
def test_a_file_with_a_key_in_the_place_of_something_else_is_refused_without_it(
    place: str, written: str, tmp_path: Path
) -> None:
    value = WRITTEN[written]
    kind = "" if place == "kind" else 'kind = "hf", '
    text = {
        "level": f'[keys.models]\n"m" = {value}\n[chains.x]\ntargets = ["hash"]\n',
        "keys": f'keys = {value}\n[chains.x]\ntargets = ["hash"]\n',
        "chain": f"chains.x = {value}\n",
    }.get(place, f'[chains.x]\nmodel = "m"\n{place} = {value}\n')
    if place in FIELDS:
        text = f'[chains.x]\nmodel = "m"\ntargets = [{{ {kind}{place} = {value} }}]\n'
    (tmp_path / "chains.toml").write_text(text)
    with watched(SECRET) as tell:
        made = outcome(lambda: Gateway.from_config("x", tmp_path / "chains.toml"))
        tell(made)
    named = place == "model" and written == "a text"  # a model's name is shown wherever it is used
    assert isinstance(made, Gateway if named else ConfigError)


def test_what_is_plainly_a_name_is_repeated_so_that_people_find_their_mistake() -> None:
    for text, said in (("tei:tei:8080", "'tei:http://tei:8080'"), ("tie:http://x", "'tie'; did you mean 'tei'")):
        with pytest.raises(ConfigError, match=said):
            chain(text)
    assert quoted("scalway", "it") == "'scalway'"
    assert shown_url("http://ada:pw@tei:8080/v1?x=1") == "http://***@tei:8080/v1?***"
    assert shown_url("http://ada:p@w/x@tei:8080/v1") == "http://***@tei:8080/v1"


def test_a_url_with_a_key_in_its_query_is_refused_as_one_with_a_password_is() -> None:
    for name in ("api_key", "key", "api-key", "access_token", "sig", "Password"):
        with pytest.raises(ConfigError, match="carries a key in its query"):
            Target("openai", url=f"http://h/v1?api-version=2024-10-21&{name}=x")
    assert Target("openai", url="http://h/v1?api-version=2024-10-21").label == "openai:http://h/v1"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wandb_api_key", True),
        ("wandbApiKey", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("comet.api_key", True),
        ("HF_TOKEN", True),
        ("db-password", True),
        ("eos_token", False),
        ("max_new_tokens", False),
        ("num_key_value_heads", False),
        ("tokenizer", False),
        ("monkey", False),
    ],
)
def test_a_name_says_that_its_value_is_a_key(name: str, said: bool) -> None:
    assert names_key(name) is said


# What a server said.

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rred\r\n2026-01-01 CRITICAL all is well\x00\ud800"


def test_foreign_text_commands_no_terminal_and_starts_no_line() -> None:
    for text in (visible(EVIL), visible(EVIL, lines=True)):
        assert not any(character in text for character in "\x1b\x07\x9b\u202e\r\x00\ud800")
    assert "\n" not in visible(EVIL)
    assert visible("a\tb\r\nc", lines=True) == "a\tb\nc"
    assert visible("naïve 👩\u200d🔬 日本 می\u200cخواهم") == "naïve 👩\u200d🔬 日本 می\u200cخواهم"


def test_the_message_of_every_error_is_fit_for_a_log_however_it_was_set() -> None:
    error = ServerError(f"said {EVIL}\n  - a list of ours", target="tei:http://h")
    later = ServerError("x")
    later.message = EVIL
    for each in (error, later, error.restated(EVIL, None)):
        for text in (str(each), each.message, repr(each), *map(str, each.args)):
            assert not any(character in text for character in "\x1b\x07\x9b\u202e\r\x00\ud800")
            assert not any(line.startswith("2026") for line in text.splitlines())
    assert "\n  - a list of ours" in str(error)
    assert json.dumps(error.message)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key hf_abcdEFGH1234 is bad", "key *** is bad"),
        ("'zzz hf_abcdEFG' instead", "'zzz ***' instead"),
        ("hf_abcdE", "***"),
        ("hf_abcdE hf_abcdEFGH1234 hf_abcdEFx", "*** *** ***x"),
        ("hf_abcd and hf_", "hf_abcd and hf_"),
    ],
)
def test_a_key_is_hidden_whole_and_where_its_beginning_is_left(text: str, shown: str) -> None:
    assert Secret("hf_abcdEFGH1234").scrub(text) == shown
    assert Secret("short").scrub("a short key, shor") == "a *** key, shor"


TOKEN = "hf_fakeQz7thatIsNowhereAtAll0123"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Gateway(TOKEN),
        lambda: HFGatewayEmbeddings(model=TOKEN),
        lambda: HFGatewayEmbedding(model_name=TOKEN),
        lambda: Target.parse(f"ollama:{TOKEN}"),
        lambda: Target("local", model=TOKEN),
        lambda: Gateway("owner/model", ["openai:http://127.0.0.1:1"], task="chat").chat("hello", model=TOKEN),
    ],
    ids=["core", "langchain", "llamaindex", "short target", "target", "call"],
)
def test_a_token_in_the_place_of_the_model_is_refused_and_not_repeated(build: Callable[[], Any]) -> None:
    with pytest.raises(GatewayError, match="the model's name is a token") as refused:
        build()
    assert TOKEN not in everything(refused.value)


@pytest.mark.parametrize("words", [("embed", "x"), ("doctor",), ("chat", "hello")], ids=" ".join)
def test_a_token_in_the_place_of_the_model_is_not_printed(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--model", TOKEN]) == 2
    printed = capsys.readouterr()
    assert "the model's name is a token" in printed.err
    assert TOKEN not in printed.out + printed.err
