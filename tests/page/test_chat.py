"""Chat in the browser: over a model in the server's process with a dead target before it, and over a scripted server."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.page_build import WORK
from tests.server.test_streams import WAITS
from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, cut_stream, dead_url, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, RunningServer, chat_chain, gateway_server
from tests.support.page_views import Views, picture_bytes
from tests.support.tiny import MODEL, PARIS, WEATHER

Open = Callable[[str], Views]
CHAT = "/v1/chat/completions"
"""Where faults are put, which what Health asks for must not use up."""


@pytest.fixture(autouse=True)
def _without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def server(primary: FakeOpenAI) -> Iterator[RunningServer]:
    with gateway_server(chat_chain(primary.url, more=WAITS)) as running:
        yield running


@pytest.fixture
def views(server: RunningServer, open_page: Open) -> Views:
    opened = open_page(server.url)
    opened.show("Chat")
    opened.text("Ask something")
    return opened


def say(views: Views, words: str) -> None:
    views.page.get_by_label("Message").fill(words)
    views.button("Send", exact=True).click()


def answer(views: Views) -> str:
    """Return the text of the last answer."""
    return views.page.get_by_role("article", name="Answer").last.inner_text()


def whole(views: Views) -> str:
    """Wait until the last answer is there; returns its text."""
    views.page.locator("article.answer[aria-busy=false]").last.wait_for()
    views.button("Retry").or_(views.button("Try again")).wait_for()
    return answer(views)


@pytest.mark.xdist_group("page")
def test_a_model_in_the_servers_process_answers_after_a_dead_target(open_page: Open) -> None:
    targets = f'["openai:{dead_url()}", "local:{MODEL}"]'
    config = f'[chains.talk]\ntask = "chat"\nmodel = "tiny-chat"\nmax_retries = 0\ntargets = {targets}\n'
    with gateway_server(config) as server:
        views = open_page(server.url)
        views.show("Chat")
        say(views, "What is the weather in Paris?")
        said = whole(views)
        assert "local:tiny-chat" in said
        assert "no cost" in said
        assert re.search(r"\d+ → \d+ tokens", said)
        views.page.get_by_text("1 target before it did not answer").click()
        views.text("openai:tiny-chat failed after")
        views.check("chat, who served and why the other did not")


MARKDOWN = """Some **bold** words, `code` and a [link](https://example.org/x).

| a | b |
|---|---|
| 1 | 2 |

```python
print("a rather long line of code that is wider than a telephone" * 20)
```

- one
- two

<script>window.broken = true</script> <img src=x onerror="window.broken = true">
[bad](javascript:window.broken=true) ![far](https://example.org/far.png)
"""


def test_an_answer_is_shown_as_markdown_and_nothing_in_it_runs(
    server: RunningServer, primary: FakeOpenAI, views: Views
) -> None:
    primary.brain = script(Said(MARKDOWN, reasoning="First I think."))
    views.check("chat, new")
    say(views, "Show me")
    said = whole(views)
    shown = views.page.locator("article.answer .markdown").last
    assert shown.locator("strong").inner_text() == "bold"
    assert shown.locator("td").all_inner_texts() == ["1", "2"]
    links = {link.inner_text(): link.get_attribute("href") for link in shown.locator("a").all()}
    assert links == {"link": "https://example.org/x", "far": "https://example.org/far.png"}
    assert "<script>window.broken = true</script>" in said
    assert views.page.evaluate("window.broken") is None
    assert shown.locator("img, script").count() == 0
    # Reasoning is folded until it is asked for.
    assert not views.page.get_by_text("First I think.").is_visible()
    views.page.get_by_text("Reasoning", exact=True).last.click()
    views.text("First I think.")
    assert re.search(r"openai:owner/model", said)
    assert "no cost" in said
    heard = views.page.get_by_role("status").filter(has_text="Answer: Some **bold** words")
    assert heard.count() == 1
    views.check("chat, an answer with everything")


TYRES = """Between **3.5 and 4.5 bar**, depending on your weight:

| rider | front | rear |
|---|---|---|
| up to 70 kg | 3.5 | 3.8 |
| above | 4.0 | 4.5 |

Check them once a month, with `pump --check`."""


def test_who_served_and_why_the_others_did_not_stands_below_the_answer(primary: FakeOpenAI, open_page: Open) -> None:
    primary.brain = script(Said(TYRES, reasoning="The handbook has a range, by weight."))
    with gateway_server(chat_chain(dead_url(), primary.url, more=WAITS)) as server:
        views = open_page(server.url)
        views.show("Chat")
        say(views, "How hard should my tyres be?")
        whole(views)
        views.page.get_by_text("1 target before it did not answer").click()
        views.text("openai:owner/model failed after")
        views.text("is the server running, and the URL right?")
        views.picture("chat")


def test_parameters_the_system_prompt_tools_and_pictures_are_sent(
    primary: FakeOpenAI, views: Views, tmp_path: Path
) -> None:
    primary.brain = script(Said(tool_calls=(PARIS,)), "It rains.")
    views.page.get_by_text("System prompt and parameters").click()
    views.page.get_by_label("System prompt", exact=True).fill("Answer in one word.")
    views.page.get_by_label("Temperature").fill("-1")
    views.text("Must be a number from 0 to 100")
    assert views.button("Send", exact=True).is_disabled()
    views.page.get_by_label("Temperature").fill("0.5")
    views.page.get_by_label("Max tokens").fill("64")
    views.page.get_by_label("Tools (JSON)").fill("[")
    views.text("Must be JSON")
    views.check("chat, wrong parameters")
    views.page.get_by_label("Tools (JSON)").fill(json.dumps([WEATHER]))
    views.text("4 set")
    views.page.get_by_label("Pictures").set_input_files(picture_bytes(tmp_path))
    views.page.get_by_alt_text("Picture 1 to be sent").wait_for()
    say(views, "What is the weather in this city?")
    views.text("The model waits for what its tools return.")
    assert "get_weather" in answer(views)
    assert '"city": "Paris"' in answer(views)
    views.check("chat, a tool call")
    views.page.get_by_label("Result of get_weather").fill("rain")
    views.button("Send results").click()
    views.text("It rains.")
    first, second = (request.json for request in primary.requests if request.path == CHAT)
    assert first["messages"][0] == {"role": "system", "content": "Answer in one word."}
    assert (first["temperature"], first["max_tokens"], first["tools"]) == (0.5, 64, [WEATHER])
    kinds = [part["type"] for part in first["messages"][1]["content"]]
    assert kinds == ["text", "image_url"]
    call, result = second["messages"][-2:]
    assert (result["content"], result["tool_call_id"]) == ("rain", call["tool_calls"][0]["id"])


@pytest.mark.complaints("ERR_INCOMPLETE_CHUNKED_ENCODING")
def test_an_answer_is_stopped_and_asked_for_again(primary: FakeOpenAI, views: Views) -> None:
    stall = stall_stream(4)
    primary.brain = script("One two three four five six.")
    primary.fail(stall, path=CHAT)
    say(views, "Count")
    assert stall.reached.wait(START_S)
    views.text("One two")
    views.check("chat, answering")
    views.page.get_by_label("Message").fill("What comes next")
    views.button("Stop").click()
    views.text("You stopped this answer.")
    # The button that sends stands where the one that stops was, and the same click is none on it.
    assert views.page.get_by_label("Message").input_value() == "What comes next"
    assert primary.count(CHAT) == 1
    assert stall.disconnected.wait(START_S)
    assert "One two" in answer(views)
    views.check("chat, stopped")
    views.button("Retry").click()
    views.text("One two three four five six.")
    assert "You stopped" not in answer(views)


def test_an_answer_that_breaks_off_keeps_what_came_and_says_why(primary: FakeOpenAI, views: Views) -> None:
    primary.brain = script("One two three four five six.")
    primary.fail(cut_stream(4), path=CHAT)
    say(views, "Count")
    views.text("The answer broke off")
    assert "One two" in answer(views)
    views.check("chat, broken off")
    views.button("Try again").click()
    views.text("One two three four five six.")


@pytest.mark.complaints("status of 50")
def test_no_answer_at_all_says_what_each_target_said(primary: FakeOpenAI, views: Views) -> None:
    primary.always(Reply(401, {"error": {"message": "no such key"}}))
    say(views, "Hello")
    views.text("There is no answer")
    assert "no such key" in answer(views)
    views.check("chat, no answer")
    primary.recover()
    primary.brain = script("Hello there.")
    views.button("Try again").click()
    views.text("Hello there.")


KEPT = """
new Promise((done, failed) => {
  const opening = indexedDB.open("hf-gateway");
  opening.onerror = () => failed(opening.error);
  opening.onsuccess = () => {
    const counting = opening.result.transaction("conversations").objectStore("conversations").count();
    counting.onerror = () => failed(counting.error);
    counting.onsuccess = () => {
      opening.result.close();
      done(counting.result);
    };
  };
})
"""
"""How many conversations the browser keeps."""


def test_conversations_stay_in_this_browser_until_they_are_deleted(primary: FakeOpenAI, views: Views) -> None:
    primary.brain = script("Hello there.")
    say(views, "First words")
    whole(views)
    views.button("New conversation").click()
    views.text("Ask something")
    say(views, "Second words")
    whole(views)
    views.page.reload()
    views.button("First words", exact=True).click()
    views.text("Hello there.")
    views.check("chat, kept conversations")
    views.button("Delete First words").click()
    # A page that is left while it deletes aborts that; what reads after it is told when it is done.
    assert views.page.evaluate(KEPT) == 1
    views.page.reload()
    views.button("Second words", exact=True).wait_for()
    assert views.page.get_by_text("First words").count() == 0


FORMS = {"Python": "py", "TypeScript": "ts", "curl": "sh"}


def test_a_conversation_is_exported_as_text_and_as_code_that_runs(
    primary: FakeOpenAI, views: Views, tmp_path: Path
) -> None:
    awkward = 'It\'s "quoted", `ticked`, ${dollar} \\n, 漢字\nEND\nand a last line'
    primary.brain = script("It costs $5.")
    say(views, awkward)
    whole(views)
    views.button("Export").click()
    views.text("Export this conversation")
    views.check("chat, export")
    shown = views.page.get_by_role("dialog").locator("pre")
    assert "## You\n\nIt's" in shown.inner_text()
    assert "It costs $5." in shown.inner_text()
    for title, suffix in FORMS.items():
        views.page.get_by_role("dialog").get_by_role("combobox").select_option(title)
        with views.page.expect_download() as downloading:
            views.button("Download").click()
        file = tmp_path / f"conversation.{suffix}"
        downloading.value.save_as(file)
        printed = run(file)
        assert "It costs" in printed, (title, printed)
        sent = primary.requests[-1].json["messages"]
        assert sent == [{"role": "user", "content": awkward}], title
    views.button("Close").click()


def run(file: Path) -> str:
    """Run an export; returns what it prints."""
    command = {".py": [sys.executable], ".sh": ["bash"], ".ts": [shutil.which("node") or "node"]}[file.suffix]
    if file.suffix == ".ts":
        esbuild = WORK / "node_modules" / ".bin" / "esbuild"
        if shutil.which("node") is None or not esbuild.exists():
            return "It costs (not run: there is no Node)"
        # Node 20 does not read types; what takes them away checks nothing else.
        plain = file.with_suffix(".mjs")
        subprocess.run([esbuild, file, f"--outfile={plain}", "--log-level=error"], check=True)
        file = plain
    done = subprocess.run(
        [*command, file],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        env={**os.environ, "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
