"""The TypeScript client: built, packed, installed into an empty folder, and run by Node.js against a real server."""

import contextlib
import gzip
import json
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, cut_stream, stall_stream
from tests.support.chromium import chromium, chromium_program
from tests.support.databases import a_ledger
from tests.support.every_chain import EveryChain, every_chain
from tests.support.gateway_server import START_S, ServerProcess
from tests.support.late import COLLECTED
from tests.support.server_keys import make_key
from tests.support.web_client import ROOT, SOURCE, Package, blocks, build_package, output, result, run_in, running

if COLLECTED:
    from hf_gateway import Gateway

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("web_client")]

MAX_GZIP_BYTES = 2000
TEXT = "One two three."
PIECES = ["One", " two", " three."]
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
WAITS = "max_retries = 0\nattempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300\n"
CHAINS = """
[chains.hf]
model = "owner/embed"
max_retries = 0
targets = ["openai:{url}"]

[chains.hash]
targets = ["hash:64"]
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def served(
    package: Package, tmp_path_factory: pytest.TempPathFactory, _late_imports: None
) -> Iterator[tuple[EveryChain, str]]:
    folder = tmp_path_factory.mktemp("server")
    with every_chain(folder) as chains, contextlib.chdir(folder):
        config = chains.config.replace('task = "chat"\n', f'task = "chat"\n{WAITS}')
        config += CHAINS.format(url=chains.openai.url)
        with ServerProcess(config, environment={"HF_GATEWAY_HOME": str(folder / "home")}) as process:
            yield chains, process.url


@pytest.fixture
def chains(served: tuple[EveryChain, str]) -> Iterator[EveryChain]:
    chains, _ = served
    yield chains
    chains.openai.recover()
    chains.openai.brain = script(TEXT)


@pytest.fixture
def url(served: tuple[EveryChain, str], chains: EveryChain) -> str:
    return served[1]


def expected(*texts: str) -> list[Any]:
    with Gateway(targets=["hash:64"]) as gateway:
        return [pytest.approx(row) for row in gateway.embed(list(texts)).vectors.tolist()]


# --- the package


def test_types_are_those_of_the_servers_document(package: Package, url: str) -> None:
    """Else: `node scripts/generate.mjs URL > src/openapi.d.ts` in web/client, with its node_modules, at a running server."""
    made = run_in(package.source, "node", "scripts/generate.mjs", url)
    assert made == (SOURCE / "src" / "openapi.d.ts").read_text("utf-8")


def test_the_module_is_small(package: Package) -> None:
    module = (package.source / "dist" / "index.js").read_bytes()
    assert len(gzip.compress(module, 9, mtime=0)) <= MAX_GZIP_BYTES
    assert b"import" not in module


def test_the_package_has_its_files_and_no_dependency(package: Package) -> None:
    with tarfile.open(package.tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    modules = (
        "index",
        "browser",
        *(f"browser/{path.stem}" for path in (SOURCE / "src" / "browser").glob("*.ts")),
    )
    built = {f"dist/{name}.{kind}" for name in modules for kind in ("js", "d.ts")}
    assert names == {"README.md", "package.json", "dist/openapi.d.ts", *built}
    folders = {path.name for path in (package.installed / "node_modules").iterdir() if not path.name.startswith(".")}
    assert folders == {"hf-gateway-client"}
    assert "dependencies" not in json.loads((SOURCE / "package.json").read_text("utf-8"))


def test_the_version_is_that_of_the_python_package() -> None:
    from hf_gateway._version import __version__

    assert json.loads((SOURCE / "package.json").read_text("utf-8"))["version"] == __version__


def test_code_of_users_passes_the_strict_compiler(package: Package) -> None:
    code = (Path(__file__).parent / "user_code.ts").read_bytes()
    (package.installed / "user_code.ts").write_bytes(code)
    tsc = str(package.source / "node_modules" / ".bin" / "tsc")
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom")
    run_in(package.installed, tsc, *options, "user_code.ts")


# --- vectors


def test_embed_and_embed_batch(package: Package, url: str) -> None:
    code = """
    const c = client();
    const one = await c.embed("one", { model: "docs" });
    const more = await c.embedBatch(["one", "two"], { model: "docs" });
    show([one.constructor.name, [one, ...more].map((v) => [...v]), await c.embedBatch([])]);
    """
    kind, vectors, none = result(package, url, code)
    assert (kind, none) == ("Float32Array", [])
    assert vectors == expected("one", "one", "two")


def test_a_client_takes_one_space_only(package: Package, url: str) -> None:
    """The second chain is refused by the server, before anything is computed."""
    code = """
    const c = client();
    await c.embed("one", { model: "docs" });
    show([c.space, await failure(() => c.embed("one", { model: "hf" })), await failure(() => c.expectSpace("other"))]);
    """
    space, refused, other = result(package, url, code)
    assert space.startswith("hf-gateway/feature-hashing-v1#")
    assert (refused["status"], refused["code"]) == (412, "space_mismatch")
    assert space in refused["message"]
    assert (other["name"], other["status"], other["code"]) == ("GatewayError", 412, "space_mismatch")


def test_of_first_requests_at_the_same_time_one_decides_the_space(package: Package, url: str) -> None:
    code = """
    const c = client();
    const one = (model) => c.embed("one", { model }).then(() => "vector", (error) => error.code);
    const all = ["docs", "hf", "hf", "docs"].map(one);
    show(await Promise.all(all));
    """
    assert result(package, url, code) == ["vector", "space_mismatch", "space_mismatch", "vector"]


def test_a_first_request_that_fails_decides_nothing(package: Package, url: str) -> None:
    code = """
    const c = client();
    const one = (model) => c.embed("one", { model }).then(() => "vector", (error) => error.code);
    const all = ["nope", "docs", "hf"].map(one);
    show(await Promise.all(all));
    """
    assert result(package, url, code) == ["model_not_found", "vector", "space_mismatch"]


def test_expect_space_is_sent_with_the_first_request(package: Package, url: str) -> None:
    code = """
    const wrong = client({ expectSpace: "other" });
    const late = client();
    late.expectSpace("other");
    const errors = [];
    for (const each of [wrong, late]) errors.push(await failure(() => each.embed("one", { model: "docs" })));
    const first = client();
    await first.embed("one", { model: "docs" });
    const right = client({ expectSpace: first.space });
    show([...errors, (await right.embed("one", { model: "docs" })).length]);
    """
    *errors, dimension = result(package, url, code)
    assert [(each["status"], each["code"]) for each in errors] == [(412, "space_mismatch")] * 2
    assert "nothing was computed" in errors[0]["message"]
    assert dimension == 64


def test_generate_hugging_face_embedding(package: Package, url: str) -> None:
    code = """
    const { generateHuggingFaceEmbedding } = client();
    const vector = await generateHuggingFaceEmbedding("one", { model: "docs" });
    show([Array.isArray(vector), vector]);
    """
    assert result(package, url, code) == [True, expected("one")[0]]


def test_generate_embedding_asks_the_first_chain(package: Package, url: str) -> None:
    code = """
    const c = client();
    await c.generateEmbedding("one");
    const again = client();
    await again.embed("one", { model: "hf" });
    show(c.space === again.space);
    """
    assert result(package, url, code) is True


def test_generate_embedding_goes_on_to_hash_and_stays_there(package: Package, url: str, chains: EveryChain) -> None:
    """Its first chain is there again at the second text, whose vector is of the same space all the same."""
    chains.openai.fail(Reply(503, {"error": {"message": "overloaded"}}), path=EMBEDDINGS)
    code = """
    const { generateEmbedding } = client();
    show([await generateEmbedding("one"), await generateEmbedding("two")]);
    """
    assert result(package, url, code) == expected("one", "two")


def test_generate_embedding_tells_why_no_chain_answered(package: Package, url: str, chains: EveryChain) -> None:
    chains.openai.always(Reply(503, {"error": {"message": "overloaded"}}), path=EMBEDDINGS)
    code = """
    show([
      await failure(() => client({ chains: ["nope", "hf", "none"] }).generateEmbedding("one")),
      await failure(() => client({ chains: ["nope"] }).generateEmbedding("one")),
      await failure(() => client({ chains: [] }).generateEmbedding("one")),
    ]);
    """
    down, unknown, empty = result(package, url, code)
    assert down["status"] >= 500
    assert (unknown["status"], unknown["code"]) == (404, "model_not_found")
    assert empty["code"] == "no_chains"


# --- the rest of the calls


def test_rerank(package: Package, url: str) -> None:
    code = 'show(await client().rerank("red fox", ["a blue whale", "the red fox"], { top_n: 1 }));'
    (best,) = result(package, url, code)
    assert best["index"] == 1


def test_models_and_status(package: Package, url: str) -> None:
    code = "show([(await client().models()).map((each) => each.id), await client().status()]);"
    models, status = result(package, url, code)
    assert {"docs", "talk", "hf", "hash"} <= set(models)
    assert status["available"] is True


def test_chat(package: Package, url: str) -> None:
    code = 'const all = []; for await (const event of client().chat("Hi")) all.push(event); show(all);'
    *pieces, end = result(package, url, code)
    assert [each["text"] for each in pieces] == PIECES
    assert (end["done"], end["finish"], end["toolCalls"]) == (True, "stop", [])
    assert end["usage"]["completion_tokens"] == 3


def test_chat_with_tools(package: Package, url: str, chains: EveryChain) -> None:
    calls = (("weather", {"city": "Paris"}), ("weather", {"city": "Rome"}))
    chains.openai.brain = script(Said(tool_calls=calls))
    code = """
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tools = [{ type: "function", function: { name: "weather", parameters } }];
    for await (const event of client().chat([{ role: "user", content: "Weather?" }], { tools })) if (event.done) show(event);
    """
    end = result(package, url, code)
    assert end["finish"] == "tool_calls"
    assert [(each["name"], json.loads(each["arguments"])) for each in end["toolCalls"]] == list(calls)
    assert all(each["id"] for each in end["toolCalls"])


LEAVING = {
    "break": """
        for await (const event of client().chat("Hi")) { show(event.text); break; }
        process.stdin.resume();
    """,
    "signal": """
        const controller = new AbortController();
        try {
          for await (const event of client().chat("Hi", { signal: controller.signal })) { show(event.text); controller.abort(); }
        } catch (error) { show(error.name); }
        process.stdin.resume();
    """,
}


@pytest.mark.parametrize("way", LEAVING)
def test_who_leaves_a_chat_stops_the_work(way: str, package: Package, url: str, chains: EveryChain) -> None:
    """The process goes on meanwhile, so that it is not its end that closes the connection."""
    stall = stall_stream(3)
    chains.openai.always(stall)
    with running(package, url, LEAVING[way]) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()[1]
        if way == "signal":
            assert json.loads(process.stdout.readline()) == "AbortError"
        assert stall.disconnected.wait(START_S)
        assert process.poll() is None


# --- errors


def test_a_chat_that_breaks_off_raises_with_the_partial_text(package: Package, url: str, chains: EveryChain) -> None:
    chains.openai.always(cut_stream(3))
    code = """
    let seen = "";
    const error = await failure(async () => { for await (const event of client().chat("Hi")) seen += event.text; });
    show([seen, error]);
    """
    seen, error = result(package, url, code)
    assert seen
    assert (error["name"], error["status"], error["partial"]) == ("GatewayError", 200, seen)
    assert error["message"]


def test_a_server_that_dies_in_a_chat_is_an_error_with_the_partial_text(
    package: Package, chains: EveryChain, tmp_path: Path
) -> None:
    stall = stall_stream(3)
    chains.openai.always(stall)
    config = f'[chains.talk]\ntask = "chat"\nmodel = "owner/talk"\n{WAITS}targets = ["openai:{chains.openai.url}"]\n'
    code = """
    let seen = "";
    show(await failure(async () => {
      for await (const event of client().chat("Hi")) { seen += event.text; console.log("first"); }
    }));
    """
    with ServerProcess(config) as process, running(package, process.url, code) as script_process:
        assert script_process.stdout is not None
        assert script_process.stdout.readline() == "first\n"
        process.signal(signal.SIGKILL)
        error = json.loads([line for line in script_process.stdout if line != "first\n"][-1])
    assert (error["status"], error["code"]) == (200, "cut")
    assert error["partial"].startswith("One")


@pytest.mark.parametrize("work", ['embed("a", { model: "hf" })', 'chat("Hi").next()'])
def test_a_failed_call_is_sent_once(work: str, package: Package, url: str, chains: EveryChain) -> None:
    chains.openai.always(Reply(503, {"error": {"message": "overloaded"}}))
    code = f"""
    let sent = 0;
    const counting = (...args) => {{ sent += 1; return fetch(...args); }};
    const error = await failure(() => client({{ fetch: counting }}).{work});
    show([sent, error]);
    """
    sent, error = result(package, url, code)
    assert (sent, error["name"]) == (1, "GatewayError")
    assert error["status"] >= 500


def test_errors_have_status_code_and_message(package: Package, url: str) -> None:
    code = """
    const c = client();
    const closed = new GatewayClient({ baseUrl: "http://127.0.0.1:9" });
    show([
      await failure(() => c.embed("a", { model: "nope" })),
      await failure(() => c.generateHuggingFaceEmbedding("a", { model: "nope" })),
      await failure(() => c.chat("Hi", { temperature: "hot" }).next()),
      await failure(() => closed.models()),
    ]);
    """
    unknown, plain, wrong, closed = result(package, url, code)
    assert (unknown["status"], unknown["code"]) == (404, "model_not_found")
    assert "there is no model 'nope'" in unknown["message"]
    assert plain["status"] == 404
    assert "there is no model 'nope'" in plain["message"]
    assert wrong["status"] == 400
    assert (closed["status"], closed["code"]) == (0, "unreachable")


def test_an_aborted_call_is_an_abort_error(package: Package, url: str) -> None:
    code = """
    show([await failure(() => client().embed("a", { signal: AbortSignal.abort() })),
          await failure(() => client().models(AbortSignal.abort()))].map((error) => error.name));
    """
    assert result(package, url, code) == ["AbortError", "AbortError"]


def test_a_server_of_another_kind_is_told_apart(package: Package, url: str) -> None:
    code = """
    const fetch = async () => new Response("<html>", { status: 200 });
    show(await failure(() => client({ fetch }).models()));
    """
    assert result(package, url, code)["code"] == "not_json"


def test_a_key_is_sent(package: Package, tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as database:
        key = make_key(database)
        with ServerProcess(f'[chains.docs]\ntargets = ["hash:64"]\n[server]\ndatabase = "{database}"\n') as process:
            code = f"""
            const work = (options) => client(options).embed("a");
            show([(await failure(() => work())).status, (await work({{ apiKey: "{key}" }})).length]);
            """
            assert result(package, process.url, code) == [401, 64]


# --- the browser, the page


def test_it_runs_in_a_browser(package: Package, url: str) -> None:
    if chromium_program() is None:
        pytest.skip("Chromium is not installed")
    module = (package.source / "dist" / "index.js").read_text("utf-8")
    code = f"""(async () => {{
      const made = URL.createObjectURL(new Blob([{json.dumps(module)}], {{ type: "text/javascript" }}));
      const {{ GatewayClient }} = await import(made);
      const client = new GatewayClient();
      let text = "";
      for await (const event of client.chat("Hi")) text += event.text;
      const vectors = await client.embedBatch(["one", "two"], {{ model: "docs" }});
      return JSON.stringify([text, vectors.map((v) => [...v]), client.space]);
    }})()"""
    with chromium() as browser, browser.page(f"{url}/version") as page:
        text, vectors, space = json.loads(page.evaluate(code))
    assert text == TEXT
    assert vectors == expected("one", "two")
    assert space


@pytest.mark.parametrize("page", ["docs/typescript.md", "web/client/README.md"])
def test_the_examples_of_the_pages_run(page: str, package: Package, url: str) -> None:
    found = [block for block in blocks(ROOT / page, "js") if "hf-gateway-client" in block]
    assert found
    for block in found:
        assert output(package, url, block.replace("http://127.0.0.1:8080", url), prelude="")
