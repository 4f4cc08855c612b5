"""Compare in the browser: answers of local chains, a scripted and a dead server side by side, and the vectors of two targets."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_streams import WAITS
from tests.servers.chat import script
from tests.servers.loopback import cut_stream, dead_url, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, START_S, RunningServer, chat_chain, gateway_server
from tests.support.page_views import NARROW, Views
from tests.support.server_keys import make_key, revoke
from tests.support.tiny import MODEL

Open = Callable[[str], Views]
CHAT = "/v1/chat/completions"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LOCAL = "talk · local:tiny-chat"
PROMPT = "Count to ten"


@pytest.fixture(scope="module")
def clouds() -> Iterator[tuple[FakeOpenAI, FakeOpenAI]]:
    """Two servers for chat."""
    with FakeOpenAI(models=None) as first, FakeOpenAI(models=None) as second:
        yield first, second


@pytest.fixture(scope="module")
def server(clouds: tuple[FakeOpenAI, FakeOpenAI], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Chat and MiniLM in this process; beside them two scripted servers, one that is away, and MiniLM on another gateway."""
    first, second = clouds
    folder = tmp_path_factory.mktemp("compare")
    other = tmp_path_factory.mktemp("other")
    price = f'[prices."owner/model"]\nprovider = "openai:{first.url}"\ninput = 10.0\noutput = 40.0\n'
    with (
        pytest.MonkeyPatch.context() as patch,
        a_ledger("sqlite", folder) as url,
        a_ledger("sqlite", other) as other_url,
        gateway_server(
            f'[chains.m]\nmodel = "{MINILM}"\ntargets = ["local"]\n', folder=other, database=other_url
        ) as far,
    ):
        patch.setenv("HF_HUB_OFFLINE", "1")
        # Prices are read when an answer ends, in whatever folder that is.
        patch.setenv("HF_GATEWAY_CONFIG", str(folder / "hf-gateway.toml"))
        config = (
            f'[chains.talk]\ntask = "chat"\nmodel = "tiny-chat"\ntargets = ["local:{MODEL}"]\n'
            + chat_chain(first.url, second.url, dead_url(), name="clouds", more=WAITS)
            + f'[chains.docs]\nmodel = "{MINILM}"\ntargets = ["local", "openai:{far.url}", "tei:{dead_url()}"]\n'
            + '[chains.toy]\ntargets = ["hash:384"]\n'
            + price
        )
        with gateway_server(config, folder=folder, database=url) as running, running.client() as client:
            # Models that are loaded: their first answers would take as long as that.
            client.post("/v1/chat/completions", json={"model": "talk", "messages": [{"role": "user", "content": "x"}]})
            yield running


@pytest.fixture
def views(server: RunningServer, clouds: tuple[FakeOpenAI, FakeOpenAI], open_page: Open) -> Iterator[Views]:
    opened = open_page(server.url)
    opened.show("Compare")
    yield opened
    for each in clouds:
        each.recover()


def place_of(views: Views, number: int) -> Any:
    return views.page.get_by_role("combobox", name=f"Model {number}", exact=True)


def choose(views: Views, *labels: str) -> None:
    """Choose what is compared, with as many places as there are labels."""
    places = views.page.get_by_role("combobox", name="Model")
    place_of(views, 2).wait_for()
    while places.count() < len(labels):
        views.button("Add a model").click()
    for place, label in enumerate(labels, 1):
        place_of(views, place).select_option(label=label)


def choose_two(views: Views, one: str, other: str) -> None:
    for name, label in (("Model A", one), ("Model B", other)):
        views.page.get_by_role("combobox", name=name, exact=True).select_option(label=label)


def compare(views: Views, prompt: str) -> None:
    views.page.get_by_label("Prompt", exact=True).fill(prompt)
    views.button("Compare", exact=True).click()


def column(views: Views, label: str) -> Any:
    return views.page.get_by_role("article", name=label)


def whole(views: Views, label: str) -> str:
    """Wait until a column is done; returns its text."""
    views.button(f"Ask again {label}").wait_for()
    text: str = column(views, label).inner_text()
    return text


def saved(views: Views, button: str) -> str:
    with views.page.expect_download() as downloading:
        views.button(button).click()
    return downloading.value.path().read_text(encoding="utf-8")


CLOUDS = [f"clouds · {place}. openai:owner/model" for place in (1, 2, 3)]


@pytest.mark.complaints("status of 502")
def test_answers_stand_side_by_side_with_speed_cost_and_error(
    clouds: tuple[FakeOpenAI, FakeOpenAI], views: Views
) -> None:
    clouds[0].brain = script("one, two, three, four, five, six, seven, eight, nine, **ten**.")
    views.text("The answers come here side by side")
    views.check("compare, new")
    choose(views, LOCAL, CLOUDS[0], CLOUDS[2])
    compare(views, PROMPT)
    local, priced, dead = whole(views, LOCAL), whole(views, CLOUDS[0]), whole(views, CLOUDS[2])
    assert re.search(r"First token\s+\d", local)
    for shown in (local, priced):  # twenty tokens in a millisecond say nothing of how fast a model is
        speed = re.search(r"Speed\s+(?:came at once|([\d.,]+) tokens/s)", shown)
        assert speed
        assert float((speed[1] or "0").replace(",", "")) < 1000
    assert re.search(r"Cost\s+no cost\s+cheapest", local)
    assert re.search(r"Cost\s+\$0\.\d+", priced)
    assert column(views, CLOUDS[0]).locator(".markdown strong").inner_text() == "ten"
    assert "six seven eight nine ten" in local
    assert "There is no answer" in dead
    assert "openai:owner/model: no connection" in dead
    assert "is the server running, and the URL right?" in dead
    heard = views.page.get_by_role("status").filter(has_text="all are done")
    heard.wait_for(state="attached")
    views.check("compare, answers and a dead target")
    views.picture("compare")
    views.picture("compare-dark", dark=True, width=NARROW)
    rows = list(csv.DictReader(io.StringIO(saved(views, "Save CSV"))))
    assert [row["outcome"] for row in rows] == ["answered", "answered", "failed"]
    assert rows[1]["answer"].startswith("one, two")
    assert 0 < float(rows[0]["first_token_seconds"]) <= float(rows[0]["seconds"])
    assert (float(rows[0]["cost_usd"]), float(rows[1]["cost_usd"]) > 0, rows[2]["cost_usd"]) == (0, True, "")
    kept = json.loads(saved(views, "Save JSON"))
    assert kept["prompt"] == PROMPT
    assert [each["target"] for each in kept["answers"]] == [None, 0, 2]
    assert kept["answers"][1]["answer"].startswith("one, two")
    assert kept["answers"][1]["completion_tokens"] == int(rows[1]["completion_tokens"])


def test_a_target_that_dies_while_comparing_is_told_and_the_others_go_on(
    clouds: tuple[FakeOpenAI, FakeOpenAI], views: Views
) -> None:
    dying, slow = clouds
    dying.brain = slow.brain = script("=One two three four five six.")
    stall = stall_stream(4)
    slow.fail(stall, path=CHAT)
    dying.fail(cut_stream(4), path=CHAT)
    choose(views, CLOUDS[0], CLOUDS[1])
    compare(views, "Count")
    assert stall.reached.wait(START_S)
    broken = whole(views, CLOUDS[0])
    assert "One two" in broken
    assert "The answer broke off" in broken
    assert column(views, CLOUDS[1]).get_attribute("aria-busy") == "true"
    column(views, CLOUDS[1]).get_by_text("One two").wait_for()
    heard = views.page.get_by_role("status").filter(has_text=f"{CLOUDS[0]} broke off; 1 still answering")
    heard.wait_for(state="attached")
    views.check("compare, one died and one answers")
    stall.release()
    assert "=One two three four five six." in whole(views, CLOUDS[1])
    # What a model wrote is no formula of a spreadsheet.
    rows = list(csv.DictReader(io.StringIO(saved(views, "Save CSV"))))
    assert [row["answer"] for row in rows] == ["'=One two three", "'=One two three four five six."]
    assert "The answer broke off" in column(views, CLOUDS[0]).inner_text()
    views.button(f"Ask again {CLOUDS[0]}").click()
    column(views, CLOUDS[0]).get_by_text("One two three four five six.").wait_for()
    assert "broke off" not in whole(views, CLOUDS[0])


@pytest.mark.complaints("ERR_INCOMPLETE_CHUNKED_ENCODING")
def test_one_is_stopped_and_all_get_the_same_parameters(clouds: tuple[FakeOpenAI, FakeOpenAI], views: Views) -> None:
    first, second = clouds
    first.brain = second.brain = script("One two three four five six.")
    stalls = [stall_stream(4), stall_stream(4)]
    for each, stall in zip(clouds, stalls, strict=True):
        each.fail(stall, path=CHAT)
    choose(views, *CLOUDS)
    views.button("Remove model 3").click()
    views.page.get_by_text("System prompt and parameters").click()
    views.page.get_by_label("System prompt", exact=True).fill("Be short.")
    views.page.get_by_label("Max tokens").fill("0")
    views.text("Must be a whole number from 1 to")
    assert views.button("Compare", exact=True).is_disabled()
    views.page.get_by_label("Max tokens").fill("32")
    compare(views, "Count")
    assert all(stall.reached.wait(START_S) for stall in stalls)
    views.button(f"Stop {CLOUDS[0]}").click()
    assert "You stopped this answer." in whole(views, CLOUDS[0])
    assert stalls[0].disconnected.wait(START_S)
    assert column(views, CLOUDS[1]).get_attribute("aria-busy") == "true"
    views.button("Stop all").click()
    assert "You stopped this answer." in whole(views, CLOUDS[1])
    one, other = (each.requests[-1].json for each in clouds)
    assert (
        one["messages"]
        == other["messages"]
        == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Count"},
        ]
    )
    assert one["max_tokens"] == other["max_tokens"] == 32


@pytest.mark.complaints("status of 502")
def test_vectors_of_two_targets_are_one_space_or_two(server: RunningServer, views: Views) -> None:
    views.page.get_by_label("Vectors").check()
    views.text("whether the vectors of both may be kept in one index")
    views.check("compare, vectors, new")
    choose_two(views, f"docs · 1. local:{MINILM}", f"docs · 2. openai:{MINILM}")
    views.button("Use the sample").click()
    views.button("Compare", exact=True).click()
    verdict = views.page.get_by_role("region", name="Verdict")
    verdict.get_by_text("One space", exact=True).wait_for()
    assert re.search(r"worst cosine (0\.9999|1\.0000)", verdict.inner_text())
    assert "Both name the same nearest text for 5 of 5 texts." in verdict.inner_text()
    cells = views.page.get_by_role("region", name=re.compile("^A: ")).locator("tbody tr")
    own, harbour, bread = (float(cells.nth(0).locator("td").nth(place).inner_text()) for place in range(3))
    assert own == 1 > harbour > bread
    views.check("compare, one space")
    views.picture("compare-vectors")
    rows = list(csv.DictReader(io.StringIO(saved(views, "Save CSV"))))
    assert len(rows) == 25
    assert float(rows[1]["cosine_by_a"]) == pytest.approx(similarity(server), abs=1e-5)
    assert float(rows[0]["cosine_a_to_b"]) == pytest.approx(1, abs=1e-3)

    choose_two(views, f"docs · 1. local:{MINILM}", "toy · hash:384")
    views.button("Compare", exact=True).click()
    verdict.get_by_text("Two spaces", exact=True).wait_for()
    assert "model" in verdict.get_by_role("table").inner_text()
    views.check("compare, two spaces")
    assert json.loads(saved(views, "Save JSON"))["verdict"] == "Two spaces"

    choose_two(views, f"docs · 3. tei:{MINILM}", "toy · hash:384")
    views.button("Compare", exact=True).click()
    verdict.get_by_text("One of the two did not answer").wait_for()
    assert "is the server running" in views.page.get_by_role("region", name=re.compile("^A: ")).inner_text()
    views.check("compare, vectors, a dead target")


def similarity(server: RunningServer) -> float:
    """Return the cosine of the first two texts of the sample, by the server alone."""
    texts = ["The harbour freezes in winter.", "In January ships cannot leave the port."]
    with server.client() as client:
        answer = client.post("/v1/embeddings", json={"model": "docs", "input": texts}).json()
    one, other = (each["embedding"] for each in answer["data"])
    return float(sum(a * b for a, b in zip(one, other, strict=True)))


def test_comparing_is_done_by_the_keyboard_alone(clouds: tuple[FakeOpenAI, FakeOpenAI], views: Views) -> None:
    clouds[0].brain = script("A short answer.")
    press = views.page.keyboard.press
    place_of(views, 2).wait_for()
    while views.page.evaluate("document.activeElement.tagName") != "SELECT":
        press("Tab")
    # From the chain in this process to the next one, over several servers.
    press("ArrowDown")
    while views.page.evaluate("document.activeElement.tagName") != "TEXTAREA":
        press("Tab")
    views.page.keyboard.type("Say something")
    press("Control+Enter")
    assert "A short answer." in whole(views, CLOUDS[0])


@pytest.mark.complaints("status of 401", "ERR_ABORTED")
def test_a_key_that_is_revoked_while_comparing_ends_the_session_and_keeps_what_was_written(
    clouds: tuple[FakeOpenAI, FakeOpenAI], open_page: Open, tmp_path: Path
) -> None:
    first, second = clouds
    first.brain = second.brain = script("One two three four five six.")
    config = chat_chain(first.url, second.url, name="clouds", more=WAITS)
    with a_ledger("sqlite", tmp_path) as url, gateway_server(config, database=url) as server:
        key, next_key = (make_key(url, scopes={"read", "chat"}) for _ in range(2))
        server.state.authenticator.forget()
        views = open_page(server.url)
        sign_in(views, key)
        views.show("Compare")
        choose(views, *CLOUDS[:2])
        stall = stall_stream(4)
        second.fail(stall, path=CHAT)
        compare(views, "Count to six")
        assert stall.reached.wait(START_S)
        whole(views, CLOUDS[0])
        revoke(url, key)
        server.state.authenticator.forget()
        views.button(f"Ask again {CLOUDS[0]}").click()
        views.text("You were signed out")
        views.text("Sign in again to go on")
        views.check("signed out while comparing")
        assert stall.disconnected.wait(START_S), "an answer that goes on for who was signed out"
        sign_in(views, next_key)
        place_of(views, 2).wait_for()
        assert views.page.get_by_label("Prompt", exact=True).input_value() == "Count to six"
        assert views.page.get_by_role("article").count() == 0, "answers of who was signed in before"
        views.button("Compare", exact=True).click()
        assert "One two three four five six." in whole(views, CLOUDS[1])


def sign_in(views: Views, key: str) -> None:
    views.page.get_by_label("Key, or token of your identity provider").fill(key)
    views.button("Sign in").click()


@pytest.mark.complaints("status of 401")
def test_each_other_state_says_what_to_do(open_page: Open, tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url, gateway_server(HASH_CHAIN, database=url) as server:
        views = open_page(server.url)
        views.text("The only target answers")
        views.show("Compare")
        views.text("This server has no chain for chat to compare")
        views.check("compare, no chain")
        views.page.get_by_label("Vectors").check()
        views.page.get_by_text("There is only one model for embeddings").click()
        views.check("compare, one model")
        keys = [make_key(url, scopes={"read"}), make_key(url, chains=frozenset({"another"}))]
        server.state.authenticator.forget()
        views.page.reload()
        views.text("This server needs a key.")
        sign_in(views, keys[0])
        views.text("Your key does not allow chat")
        views.check("compare, forbidden")
        views.button("Sign out").click()
        sign_in(views, keys[1])
        views.text("Your key may use no chain for chat")
        views.check("compare, no chain for the key")


@pytest.mark.complaints("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "Failed to fetch")
def test_a_server_that_is_away_is_told_in_each_column(open_page: Open) -> None:
    with gateway_server(
        f'{HASH_CHAIN}[chains.talk]\ntask = "chat"\nmodel = "tiny-chat"\ntargets = ["local:{MODEL}"]\n'
    ) as server:
        views = open_page(server.url)
        views.text("2 targets answer")
        held = []
        views.page.route("**/ui/health", lambda route: held.append(route))
        views.show("Compare")
        views.text("Asking for the models")
        views.check("compare, loading")
        for route in held:
            route.continue_()
        views.page.unroute("**/ui/health")
        place_of(views, 2).wait_for()
    compare(views, "Anything")
    views.text("The server does not answer.")
    views.page.get_by_role("article").first.get_by_text("There is no answer").first.wait_for()
    views.check("compare, offline")
    views.show("Health")
    views.show("Compare")
    views.text("The models could not be listed")
    views.check("compare, failed")
