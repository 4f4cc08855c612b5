"""Each example does what it says, run as a user runs it: against an Ollama whose model reads what it is given.

The model of an example is a function of the request. What it answers it takes from the question, the passages and the results
of tools in that request, so an example that loses one of them on the way fails here.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.servers.chat import Brain, Said, text_of
from tests.servers.loopback import cut_stream, dead_url
from tests.servers.ollama import FakeOllama
from tests.support.late import COLLECTED

if COLLECTED:
    import jsonschema


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NO_KEY = "hf skipped KeyMissing"


def run(name: str, ollama: str) -> subprocess.CompletedProcess[str]:
    """Run an example without a key, and without a network but for that Ollama."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OLLAMA_HOST": ollama},
        timeout=120,
    )


def served(name: str, brain: Brain) -> tuple[list[str], list[dict[str, Any]]]:
    """Run an example against a model that answers with `brain`: the lines it prints, and the requests the model got."""
    with ollama(brain) as server:
        done = run(name, server.url)
    assert done.returncode == 0, done.stderr
    assert {request.path for request in server.requests} == {"/api/chat"}
    asked = [request.json for request in server.requests]
    assert {(body["model"], body["options"]["temperature"]) for body in asked} == {("llama3.1", 0)}
    return done.stdout.splitlines(), asked


def ollama(brain: Brain) -> FakeOllama:
    able = {"capabilities": ["completion", "tools"], "context_length": 131_072}
    return FakeOllama({"llama3.1": able}, brain=brain)


# What the models have in common: they read the last of what they are told, and write what they are asked to.


def prompt_of(asked: Mapping[str, Any]) -> str:
    return text_of(asked["messages"][-1])


def words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower())) - {"the", "what", "how", "was", "has", "and", "for", "where", "who"}


def closest(question: str, texts: Sequence[str]) -> str:
    """Return the text that has most of the question's words."""
    return max(texts, key=lambda text: len(words(question) & words(text)))


def tool(asked: Mapping[str, Any], name: str, **arguments: Any) -> Said:
    """Call a tool, in the form that the server forces on the model where it does, with arguments that fit its schema."""
    offered = {each["function"]["name"]: each["function"] for each in asked["tools"]}
    jsonschema.validate(arguments, offered[name]["parameters"])
    if "response_format" not in asked:
        return Said(tool_calls=((name, arguments),))
    called: dict[str, Any] = arguments if len(offered) == 1 else {"name": name, "arguments": arguments}
    jsonschema.validate(called, asked["response_format"]["json_schema"]["schema"])
    return Said(json.dumps(called))


def results(asked: Mapping[str, Any]) -> dict[str, str]:
    """Return what each tool returned so far, by the tool's name."""
    names = {
        call["id"]: call["function"]["name"]
        for message in asked["messages"]
        for call in message.get("tool_calls") or ()
    }
    return {
        names[message["tool_call_id"]]: text_of(message) for message in asked["messages"] if message["role"] == "tool"
    }


def from_context(asked: Mapping[str, Any]) -> Said:
    """Answer LlamaIndex's question about a context by the sentences there that fit it best."""
    found = re.search(r"-{9,}\n(.*?)-{9,}.*\nQuery: (.*?)\n", prompt_of(asked), re.DOTALL)
    assert found, prompt_of(asked)
    if answers := re.findall(r"^Answer: (.*)$", found[1], re.MULTILINE):
        return Said(answers[-1])  # the context is what was found out step by step
    sentences = [line.strip() for line in re.split(r"\n|(?<=\.) ", found[1]) if line.strip()]
    return Said(closest(found[2], sentences))


# chat_streaming.py

SKY = "Sunlight is scattered by air. Blue light is scattered most. So the sky is blue."


def knows_the_sky(asked: Mapping[str, Any]) -> Said:
    assert asked["messages"] == [{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}]
    return Said(SKY, prompt_tokens=21, completion_tokens=17)


def test_chat_streaming_streams_from_ollama_where_there_is_no_key() -> None:
    lines, asked = served("chat_streaming.py", knows_the_sky)
    assert lines[0] == SKY
    assert lines[2].startswith("21 tokens in, 17 out, ")
    assert lines[3].endswith("from llama3.1 at ollama:meta-llama/Llama-3.1-8B-Instruct")
    assert lines[4].strip().startswith(NO_KEY)
    assert lines[5].strip() == "ollama:meta-llama/Llama-3.1-8B-Instruct served"
    assert [body["stream"] for body in asked] == [True]
    assert asked[0]["options"] == {"temperature": 0, "num_predict": 300}


def test_chat_streaming_keeps_the_beginning_of_an_answer_that_breaks_off() -> None:
    with ollama(knows_the_sky) as server:
        server.always(cut_stream(5))
        done = run("chat_streaming.py", server.url)
    begun = "Sunlight is scattered by air."
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == begun
    assert done.stdout.splitlines()[2].startswith("broken off: ollama:meta-llama/Llama-3.1-8B-Instruct: ")
    assert done.stdout.splitlines()[3] == f"kept: the first {len(begun)} characters"
    assert len(server.requests) == 1
    assert "Traceback" not in done.stderr


def test_chat_streaming_says_of_each_target_why_it_could_not_answer() -> None:
    done = run("chat_streaming.py", dead_url())
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("no target could answer: ")
    for told in ("HF_TOKEN", "no connection to ", "local:HuggingFaceTB/SmolLM2-360M-Instruct", "hf download"):
        assert told in done.stderr
    assert "Traceback" not in done.stderr


# langchain_chat.py


def reads_appointments(asked: Mapping[str, Any]) -> Said:
    said = prompt_of(asked)
    if "tools" not in asked:
        assert text_of(asked["messages"][0]) == "You answer in one sentence."
        return Said("Air scatters blue light most." if "sky" in said else "I do not know.")
    people = re.match(r"(\w+) and (\w+),", said)
    day = re.search(r"\b\w+day\b", said)
    hour = {"one": 1, "two": 2, "three": 3}[re.search(r"at (\w+)", said)[1]] + 12 * ("afternoon" in said)
    return tool(asked, "Appointment", day=day[0], hour=hour, people=list(people.groups()))


def test_langchain_chat_streams_fills_a_class_and_tells_who_answered() -> None:
    lines, (streamed, filled) = served("langchain_chat.py", reads_appointments)
    assert lines[1] == "Air scatters blue light most."
    assert "Appointment(day='Friday', hour=14, people=['Grace', 'Alan'])" in lines
    usage = next(ast.literal_eval(line.strip()) for line in lines if "input_tokens" in line)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 2
    assert any("served by ollama:meta-llama/Llama-3.1-8B-Instruct" in line for line in lines)
    assert any(line.strip().startswith(NO_KEY) for line in lines)
    assert streamed["stream"]
    assert "format" not in streamed
    assert set(filled["format"]["properties"]) == {"day", "hour", "people"}
    assert filled["format"]["properties"]["hour"]["maximum"] == 23


# langchain_agent.py


def clerk(asked: Mapping[str, Any]) -> Said:
    known = results(asked)
    number = next(re.search(r"order (\d+)", text_of(each)) for each in asked["messages"] if each["role"] == "user")
    if "find_order" not in known:
        return tool(asked, "find_order", number=int(number[1]))
    order = json.loads(known["find_order"])
    if "shipping_cost" not in known:
        return tool(asked, "shipping_cost", kilograms=order["kilograms"], country=order["country"])
    euros = float(known["shipping_cost"].split()[0])
    return tool(asked, "Quote", order=int(number[1]), item=order["item"], euros=euros)


def test_langchain_agent_asks_one_tool_after_the_other_and_fills_its_class() -> None:
    lines, asked = served("langchain_agent.py", clerk)
    assert lines[0] == "find_order({'number': 1042})"
    assert "office chair" in lines[1]
    assert lines[2:4] == ["shipping_cost({'kilograms': 14.0, 'country': 'Norway'})", "  -> 56.00 euros"]
    assert lines[5] == "Order 1042, office chair: 56.00 euros"
    assert lines[8].strip().startswith(NO_KEY)
    assert len(asked) == 3
    for body in asked:
        names = [each["function"]["name"] for each in body["tools"]]
        assert names == ["find_order", "shipping_cost", "Quote"]
        assert {form["properties"]["name"]["const"] for form in body["format"]["anyOf"]} == set(names)
        assert text_of(body["messages"][0]).startswith("You are a shipping clerk.")


# llamaindex_agent.py


def colleague(asked: Mapping[str, Any]) -> Said:
    if "tools" not in asked:
        return from_context(asked)
    known = results(asked)
    question = next(text_of(each) for each in asked["messages"] if each["role"] == "user")
    if "handbook" not in known:
        return tool(asked, "handbook", input="How much is paid for meals a day?")
    if "multiply" not in known:
        days = {"two": 2, "three": 3}[re.search(r"for (\w+) days", question)[1]]
        return tool(asked, "multiply", a=float(re.search(r"(\d+) euros a day", known["handbook"])[1]), b=days)
    return Said(f"You may spend {float(known['multiply']):.0f} euros on meals.")


@pytest.mark.xdist_group("torch")
def test_llamaindex_agent_looks_up_a_rule_and_calculates_with_it() -> None:
    lines, asked = served("llamaindex_agent.py", colleague)
    assert lines[0] == "Asked directly: Annual leave: everybody has 30 days a year."
    assert [line.partition("(")[0] for line in lines[1:3]] == ["Tool: handbook", "Tool: multiply"]
    assert "40 euros a day" in lines[1]
    assert lines[2] == "Tool: multiply({'a': 40.0, 'b': 3}) -> 120.0"
    assert lines[3] == "The agent: You may spend 120 euros on meals."
    assert lines[5].startswith("5 answers with ")
    assert lines[6].strip().startswith(NO_KEY)
    answering = [body for body in asked if "tools" not in body]
    deciding = [body for body in asked if "tools" in body]
    assert len(answering) == 2
    assert not any(body["stream"] is False for body in deciding)
    assert {each["function"]["name"] for body in deciding for each in body["tools"]} == {"handbook", "multiply"}
    assert "Annual leave" in prompt_of(answering[0])
    assert "Trains" not in prompt_of(answering[0])
    assert "Meals" in prompt_of(answering[1])


# llamaindex_multi_hop.py


def asks_on(asked: Mapping[str, Any]) -> Said:
    said = prompt_of(asked)
    if "tools" in asked:
        choices = re.findall(r"^\((\d)\) (.*)$", said, re.MULTILINE)
        question = re.search(r"question: '(.*)'", said)[1]
        chosen = closest(question, [text for _, text in choices])
        number = next(int(number) for number, text in choices if text == chosen)
        return tool(asked, "SingleSelection", index=number, reason=f"it is about {chosen}")
    if "Previous reasoning" not in said:
        return from_context(asked)
    mine = said[said.rindex("\nQuestion: ") :]
    question = re.search(r"Question: (.*)\n", mine)[1]
    known = re.findall(r"^- (.*)$", mine, re.MULTILINE)
    if not known:
        return Said(f"Where was {re.search(r'where (.*) was built', question)[1]} built?")
    if len(known) == 2:
        town = re.search(r"built in (\w+)", known[1])
        return Said(f"Who is the mayor of {town[1]}?")
    return Said("None")


def test_llamaindex_multi_hop_asks_one_index_after_the_other() -> None:
    lines, asked = served("llamaindex_multi_hop.py", asks_on)
    assert lines[:6] == [
        "1. Where was the ferry Aurora built?",
        "   The ferry Aurora was built in Lindvik and carries 40 cars.",
        "   from: The ferry Aurora was built in Lindvik and carries 40 cars.",
        "2. Who is the mayor of Lindvik?",
        "   Lindvik has 3,000 inhabitants, and Ingrid Solheim is its mayor.",
        "   from: Lindvik has 3,000 inhabitants, and Ingrid Solheim is its mayor.",
    ]
    assert "Ingrid Solheim" in lines[8]
    # Three times what to ask next, twice where, two answers, and one of all together.
    assert lines[10].startswith("8 answers with ")
    chosen = [body["format"]["properties"] for body in asked if "tools" in body]
    assert [set(properties) for properties in chosen] == [{"index", "reason"}] * 2
    assert not any("Storhamn" in prompt_of(body) for body in asked)


# langchain_multi_hop.py


def plans(asked: Mapping[str, Any]) -> Said:
    said = prompt_of(asked)
    question = re.findall(r"(?:Question|one sentence): (.*)", said)[-1]
    if "tools" in asked:
        bridge = re.search(r"the (\w+ Bridge)", question)[1]
        steps = [f"Who designed the {bridge}?", "Where was #1 born?", "Which river flows through #2?"]
        return tool(asked, "Plan", questions=steps)
    if known := re.search(r"Known:\n(.*?)\n\n", said, re.DOTALL):
        return Said(f"It is the {known[1].splitlines()[-1].rpartition('? ')[2]}.")
    fact = closest(question, re.search(r"Facts:\n(.*?)\n\n", said, re.DOTALL)[1].splitlines())
    return Said(re.search(r"designed by (.*)|born in (.*)|river (\w+)", fact)[0].split(" by ")[-1].split(" in ")[-1])


def test_langchain_multi_hop_puts_each_answer_into_the_next_question() -> None:
    lines, (planned, *steps, combined) = served("langchain_multi_hop.py", plans)
    assert [line for line in lines if re.match(r"\d\. ", line)] == [
        "1. Who designed the Kestrel Bridge? Marta Lund",
        "2. Where was Marta Lund born? Aldmoor",
        "3. Which river flows through Aldmoor? river Tarn",
    ]
    assert lines[8] == "It is the river Tarn."
    assert any(line.strip().startswith(NO_KEY) for line in lines)
    assert set(planned["format"]["properties"]) == {"questions"}
    facts = ["The Kestrel Bridge was designed by Marta Lund.", "Marta Lund was born", "The river Tarn flows"]
    assert [fact in prompt_of(step) for fact, step in zip(facts, steps, strict=True)] == [True] * 3
    assert "Where was Marta Lund born? Aldmoor" in prompt_of(combined)


# langchain_citations.py


def cites(asked: Mapping[str, Any]) -> Said:
    """Quote the passages, and twice something that is not there."""
    passages = re.findall(r"^\[(\d)\] (.*)$", prompt_of(asked), re.MULTILINE)
    statements = [
        {"sentence": f"{topic.title()}: see there.", "passage": int(number), "quote": quote[0].upper()}
        for topic in ("direction", "distance")
        for number, passage in passages
        if (quote := re.search(rf"[\w ]+{topic}", passage))
    ]
    statements += [
        {"sentence": "They also sing.", "passage": 1, "quote": "Bees sing to each other."},
        {"sentence": "They dance.", "passage": 9, "quote": "dances on the comb"},
        {"sentence": "They are clever.", "passage": 1, "quote": " "},
    ]
    return tool(asked, "Answer", statements=statements)


@pytest.mark.xdist_group("torch")
def test_langchain_citations_prints_only_what_the_passages_support() -> None:
    lines, (asked,) = served("langchain_citations.py", cites)
    passages = {line[1]: line for line in lines if re.match(r"\[\d\] ", line)}
    cited = [re.fullmatch(r"  (\w+): see there\. \[(\d)\]", line) for line in lines[1:3]]
    assert [found[1] for found in cited] == ["Direction", "Distance"]
    assert [found[1].lower() in passages[found[2]] for found in cited] == [True, True]
    assert [line.rpartition(": ")[2] for line in lines if "refused" in line] == [
        "'They also sing.')",
        "'They dance.')",
        "'They are clever.')",
    ]
    assert len(passages) == 3
    assert all(passage in prompt_of(asked) for passage in passages.values())
    assert set(asked["format"]["properties"]) == {"statements"}
    assert any(line.startswith(NO_KEY) for line in lines)


# llamaindex_citations.py


def numbers_sources(asked: Mapping[str, Any]) -> Said:
    """Cite the sources by the numbers they have, and one that there is not."""
    given = prompt_of(asked).partition("Below are several numbered sources")[2]
    sources = dict(reversed(found) for found in re.findall(r"Source (\d):\n(.*)", given))
    lit, lamp = closest("lit first time", list(sources)), closest("electric lamp since", list(sources))
    year, since = re.search(r"first time in (\d+)", lit)[1], re.search(r"since (\d+)", lamp)[1]
    return Said(
        f"It was lit in {year} [{sources[lit]}], has had the lamp since {since} [{sources[lamp]}], and shines [7]."
    )


def test_llamaindex_citations_shows_the_sources_that_were_cited() -> None:
    lines, (asked,) = served("llamaindex_citations.py", numbers_sources)
    found = re.fullmatch(
        r"  It was lit in 1874 \[(\d)\], has had the lamp since 1911 \[(\d)\], and shines \[7\]\.", lines[1]
    )
    assert found
    below = {line[1]: line[4:] for line in lines if re.match(r"\[\d\] ", line)}
    assert below[found[1]].startswith("keeper's log: The lighthouse was lit for the first time in 1874.")
    assert below[found[2]].startswith("engineer's report: The lighthouse has had an electric lamp since 1911")
    assert below["7"] == "is none of the sources: the model made it up"
    assert "214 steps" not in prompt_of(asked)
    assert any(line.strip().startswith(NO_KEY) for line in lines)


# The examples without a chat model


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize("name", ["langchain_rag.py", "llamaindex_rag.py"])
def test_a_rag_example_finds_the_right_passage_offline_and_without_a_key(name: str) -> None:
    done = run(name, dead_url())
    assert done.returncode == 0, done.stderr
    assert "try statement" in done.stdout.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hybrid_langchain.py", "hybrid_llamaindex.py"])
def test_a_hybrid_example_finds_a_code_by_its_letters_and_a_question_by_its_meaning(name: str) -> None:
    done = run(name, dead_url())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "What does E1042 mean?"
    assert lines[1].endswith("Error E1042: the disk quota of the project is used up.")
    assert lines[3] == "How do I handle errors?"
    assert any("Exceptions are caught" in line for line in lines[4:])


@pytest.mark.parametrize("name", ["langchain_degrade.py", "llamaindex_degrade.py"])
def test_a_search_goes_by_words_when_nobody_can_embed(name: str) -> None:
    done = run(name, dead_url())
    assert done.returncode == 0, done.stderr
    assert "try statement" in done.stdout.splitlines()[0]


def test_every_example_is_tested_and_says_how_to_run_it() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in source
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert told
        assert f"python examples/{path.name}" in told
