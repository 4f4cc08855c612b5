"""What is looked at before an adapter goes out: each check has something that it refuses, and nothing is sent then."""

import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway.cli import main
from hf_gateway.errors import InvalidRequest
from hf_gateway.hub.adapter import AdapterRefused
from tests.support.publishing import BASE, NAMES, REPO, TOKEN, Hub, adapter, config, safetensors, tensors

SECRET = "hf_" + "Q7" * 15


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return adapter(tmp_path / "adapter")


def rewrite(name: str, content: bytes | str | dict[str, Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = json.dumps(content) if isinstance(content, dict) else content
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def weights(header: Any = None, data: bytes | None = None) -> Callable[[Path], None]:
    return rewrite("adapter_model.safetensors", safetensors(header, data))


def entry(**changes: Any) -> dict[str, Any]:
    return {NAMES[0]: {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]} | changes}


class Runs:
    """What a pickle can be."""

    def __reduce__(self) -> Any:
        return (os.abort, ())  # nobody could overlook that


PICKLE = pickle.dumps(Runs(), protocol=4)
ZIP = b"PK\x03\x04" + bytes(30)

REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # name: (what is done to the folder, which check, what it says)
    "no config": (without("adapter_config.json"), "missing", "adapter_config.json: is missing"),
    "a config that is no JSON": (rewrite("adapter_config.json", "{"), "config", "is not valid JSON"),
    "a config that is a list": (rewrite("adapter_config.json", "[]"), "config", "is not an object"),
    "a kind that peft does not know": (rewrite("adapter_config.json", config(peft_type="LORAX")), "config", "'LORAX'"),
    "a kind that is a list": (rewrite("adapter_config.json", config(peft_type=["LORA"])), "config", "peft_type is ['LORA']"),
    "a kind that is an object": (rewrite("adapter_config.json", config(peft_type={"LORA": 1})), "config", "peft_type is {"),
    "no kind": (rewrite("adapter_config.json", config(peft_type=None)), "config", "peft_type is None"),
    "no weights": (without("adapter_model.safetensors"), "missing", "adapter_model.safetensors: is missing"),
    "empty weights": (rewrite("adapter_model.safetensors", b""), "safetensors", "truncated or not safetensors"),
    "weights cut in the header": (rewrite("adapter_model.safetensors", safetensors()[:100]), "safetensors", "truncated"),
    "weights cut in the data": (rewrite("adapter_model.safetensors", safetensors()[:-4]), "safetensors", "after the end"),
    "bytes behind the weights": (rewrite("adapter_model.safetensors", safetensors() + b"x"), "safetensors", "65 bytes follow"),
    "a header that is no JSON": (weights(b'{"a": '), "safetensors", "its header is not valid JSON"),
    "a header that is a list": (weights(b"[]", b""), "safetensors", "its header is not an object"),
    "a name that stands twice": (weights(b'{"a": {}, "a": {}}', b""), "safetensors", "duplicate name"),
    "a header of a gigabyte": (
        rewrite("adapter_model.safetensors", (1 << 30).to_bytes(8, "little") + b"{}"), "safetensors", "longer than the file",
    ),
    "an unknown type of number": (weights(entry(dtype="F33"), bytes(32)), "safetensors", "an unknown type: 'F33'"),
    "a list of types of number": (weights(entry(dtype=["F32"]), bytes(32)), "safetensors", "an unknown type: ['F32']"),
    "a negative shape": (weights(entry(shape=[-8]), bytes(32)), "safetensors", "invalid shape or offsets"),
    "offsets outside of the file": (weights(entry(data_offsets=[0, 64], shape=[16]), bytes(32)), "safetensors", "after the end"),
    "offsets that do not fit the shape": (weights(entry(shape=[7]), bytes(32)), "safetensors", "do not match"),
    "a gap between tensors": (weights(entry(data_offsets=[8, 40]), bytes(40)), "safetensors", "do not begin where"),
    "metadata that are no text": (weights({"__metadata__": {"a": 1}} | entry(), bytes(32)), "safetensors", "names to strings"),
    "no tensor": (weights({}, b""), "safetensors", "contains no tensors"),
    "a whole model instead of an adapter": (
        weights(tensors(("model.embed_tokens.weight",))), "safetensors", "the weights of a whole model",
    ),
    "a pickle by its name": (rewrite("adapter_model.bin", b"anything"), "pickle", "adapter_model.bin: is of a kind"),
    "a pickle in capital letters": (rewrite("WEIGHTS.PT", b"anything"), "pickle", "WEIGHTS.PT: is of a kind"),
    "a pickle under another name": (rewrite("LICENSE", PICKLE), "pickle", "LICENSE: is a pickle, whatever its name says"),
    "a pickle among what stays here": (rewrite("notes/data.dat", PICKLE), "pickle", "notes/data.dat: is a pickle"),
    "a pickle for weights": (rewrite("adapter_model.safetensors", PICKLE), "safetensors", "not safetensors"),
    "torch's zip under another name": (rewrite("tokenizer.model", ZIP), "pickle", "tokenizer.model: is a zip archive"),
    "a link to a file": (link("tokenizer.json", "/etc/hostname"), "symlink", "tokenizer.json: is a link"),
    "a link to a folder": (link("more", "/etc"), "symlink", "more: is a link"),
    "a link to nowhere": (link("LICENSE", "nowhere"), "symlink", "LICENSE: is a link"),
    "a hidden file": (rewrite(".env", "x=1"), "dotfile", ".env: is hidden"),
    "a hidden folder": (rewrite(".git/config", "x"), "dotfile", ".git: is hidden"),
    "a checkpoint": (rewrite("checkpoint-500/adapter_config.json", "{}"), "checkpoint", "checkpoint-500: is a checkpoint"),
    "an optimizer's state": (rewrite("optimizer.pt", b"x"), "optimizer", "optimizer.pt: is the state of a training"),
    "an optimizer as safetensors": (rewrite("optimizer.safetensors", safetensors()), "optimizer", "the state of a training"),
    "the training's arguments": (rewrite("training_args.bin", b"x"), "optimizer", "training_args.bin"),
    "code": (rewrite("modeling_x.py", "import os"), "code", "modeling_x.py: is code"),
    "a token in a text": (rewrite("LICENSE", f"free\n\nHF_TOKEN={SECRET}\n"), "secret", "LICENSE: line 3 seems to contain"),
    "a token in the tokenizer's config": (
        rewrite("tokenizer_config.json", {"token": SECRET}), "secret", "tokenizer_config.json: line 1",
    ),
    "a token in the adapter's config": (
        rewrite("adapter_config.json", config(note=SECRET)), "secret", "adapter_config.json: line 1",
    ),
    "a token in the weights' metadata": (
        weights(tensors() | {"__metadata__": {"note": SECRET}}), "secret", "adapter_model.safetensors: line 1",
    ),
    "a token in the card": (rewrite("README.md", f"# Mine\n\nlogin with {SECRET}\n"), "secret", "README.md: line 3"),
    "an API key": (rewrite("NOTICE", "OPENAI_API_KEY=sk-proj-" + "a1B2" * 8), "secret", "an API key"),
    "a key by its name": (rewrite("NOTICE", '{"wandb_api_key": "0123456789abcdef0123"}'), "secret", "a key by its name"),
    "an AWS key": (rewrite("NOTICE", "AKIA" + "ABCDEFGH12345678"), "secret", "an AWS key"),
    "a private key": (rewrite("NOTICE", "-----BEGIN OPENSSH PRIVATE KEY-----"), "secret", "a private key"),
    "a password in a URL": (rewrite("NOTICE", "https://ada:geheim@example.org/x"), "secret", "a password in a URL"),
    "a text that is none": (rewrite("LICENSE", b"\xff\xfe\x00"), "not text", "LICENSE: is not a text file"),
    "a tokenizer that is no JSON": (rewrite("tokenizer.json", "<html>"), "not JSON", "tokenizer.json: is not valid JSON"),
    "a path in another setting": (
        rewrite("adapter_config.json", config(eva_config={"cache": "/home/ada/x"})), "local path", "eva_config.cache is a local",
    ),
    "a path in the middle of a setting": (
        rewrite("adapter_config.json", config(note="--data=/home/ada/x")), "local path", "note contains a local path",
    ),
    "a path in a setting's name": (
        rewrite("adapter_config.json", config(notes={"/home/ada/x": 1})), "local path", "a name in notes is a local path",
    ),
    "a path in the tokenizer's config": (
        rewrite("tokenizer_config.json", {"chat_template": "{# from C:\\Users\\ada\\x #}"}), "local path", "contains a local",
    ),
    "a path in the weights' metadata": (
        weights(tensors() | {"__metadata__": {"trained_from": "/home/ada/m"}}), "local path", "trained_from is a local path",
    ),
    "a path in a licence's text": (rewrite("NOTICE", "free\nsee /Users/ada/x"), "local path", "NOTICE: line 2 contains a"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "check", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused(change: Callable[[Path], None], check: str, said: str, folder: Path, hub: Hub) -> None:
    change(folder)
    with pytest.raises(AdapterRefused, match="cannot be published") as caught:
        hub.publish(folder)
    assert any(problem.check == check for problem in caught.value.problems)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert hub.requests == []


def test_everything_that_stands_against_it_is_said_at_once(folder: Path, hub: Hub) -> None:
    for name in ("a pickle by its name", "a hidden file", "a token in a text", "no weights"):
        REFUSED[name][0](folder)
    with pytest.raises(AdapterRefused) as caught:
        hub.publish(folder, metadata={"license": None})
    assert {problem.check for problem in caught.value.problems} == {"pickle", "dotfile", "secret", "missing", "licence"}


def test_nothing_in_a_pickle_runs(folder: Path, hub: Hub, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Touches:
        def __reduce__(self) -> Any:
            return (Path.touch, (ran,))

    (folder / "adapter_model.safetensors").write_bytes(pickle.dumps(Touches()))
    with pytest.raises(AdapterRefused):
        hub.publish(folder)
    assert not ran.exists()


def test_the_token_itself_is_found_wherever_it_stands(folder: Path, hub: Hub) -> None:
    token = "hf_short"  # too short for what tokens look like
    hub.users[token] = hub.users[TOKEN]
    with pytest.raises(AdapterRefused, match="the card contains the token itself") as caught:
        hub.publish(folder, token, metadata={"description": f"made with {token}"})
    assert token not in str(caught.value)


# What goes out, and what of it is changed.


def test_what_belongs_to_an_adapter_goes_out_and_the_rest_stays_here(folder: Path, hub: Hub) -> None:
    for name in (
        "LICENSE",
        "tokenizer.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "notes.csv",
        "logs/a.txt",
        "x.png",
    ):
        rewrite(name, "{}")(folder)
    done = hub.publish(folder, dry_run=True)
    assert [file.path for file in done.plan.files] == [
        "LICENSE", "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "special_tokens_map.json", "tokenizer.json",
    ]  # fmt: skip
    assert done.plan.left_out == ("logs/a.txt", "notes.csv", "x.png")


CACHED = "/home/ada/.cache/huggingface/hub/models--acme--tiny-chat/snapshots/0123456789abcdef0123456789abcdef01234567"
LOCAL = {
    "an absolute path": "/home/ada/models/tiny",
    "a path from here": "./out/tiny",
    "a path up from here": "../tiny",
    "the home folder": "~/models/tiny",
    "a Windows path": r"C:\Users\ada\tiny",
    "a network path": r"\\nas\models\tiny",
    "a deep path": "models/acme/tiny",
    "a folder that looks like an id": "models/tiny",
}


@pytest.mark.parametrize("path", LOCAL.values(), ids=LOCAL.keys())
def test_a_path_of_this_machine_is_taken_out_of_card_tags_and_config(path: str, tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    folder = adapter(tmp_path / "adapter", base=path)
    rewrite("tokenizer_config.json", {"name_or_path": path, "tokenizer_file": "/home/ada/x/tokenizer.json"})(folder)
    done = hub.publish(folder, metadata={"base_model": BASE})
    files = {name: content.decode() for name, content in hub.files.items() if not name.endswith(".safetensors")}
    for content in files.values():
        assert path not in content
        assert json.dumps(path)[1:-1] not in content
        assert "/home/ada" not in content
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == BASE
    assert json.loads(files["tokenizer_config.json"]) == {"name_or_path": BASE}
    assert f"base_model: {BASE}\n" in files["README.md"]
    assert f"- base_model:adapter:{BASE}\n" in files["README.md"]
    assert any("was a local path" in change for change in done.plan.changed)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == path


def test_a_path_into_the_hubs_cache_is_the_model_and_its_commit(tmp_path: Path, hub: Hub) -> None:
    hub.publish(adapter(tmp_path / "adapter", base=CACHED))
    written = json.loads(hub.files["adapter_config.json"])
    assert (written["base_model_name_or_path"], written["revision"]) == (BASE, CACHED[-40:])
    assert f'from_pretrained("{BASE}", revision="{CACHED[-40:]}")' in hub.files["README.md"].decode()
    assert "/home/ada" not in hub.files["README.md"].decode()


def test_a_path_in_a_text_of_ones_own_is_taken_out_too(tmp_path: Path, hub: Hub) -> None:
    folder = adapter(tmp_path / "adapter", base="/home/ada/models/tiny")
    rewrite("README.md", "---\nlanguage: el\n---\n# Mine\n\nTrained from /home/ada/models/tiny with care.\n")(folder)
    hub.publish(folder, metadata={"base_model": BASE})
    written = hub.files["README.md"].decode()
    assert f"Trained from {BASE} with care." in written
    assert "language: el\n" in written


def test_other_places_for_the_base_models_path_get_its_id_too(tmp_path: Path, hub: Hub) -> None:
    folder = adapter(tmp_path / "adapter", base="/home/ada/tiny")
    settings = {
        "peft_type": "PROMPT_TUNING",
        "base_model_name_or_path": "/home/ada/tiny",
        "tokenizer_name_or_path": "/home/ada/tiny",
        "prompt_tuning_init_state_dict_path": "/home/ada/prompt.pt",
    }
    rewrite("adapter_config.json", settings)(folder)
    hub.publish(folder, metadata={"base_model": BASE})
    written = json.loads(hub.files["adapter_config.json"])
    assert written["base_model_name_or_path"] == written["tokenizer_name_or_path"] == BASE
    assert "prompt_tuning_init_state_dict_path" not in written


def test_a_tokenizer_of_another_model_on_the_hub_stays(tmp_path: Path, hub: Hub) -> None:
    folder = adapter(tmp_path / "adapter")
    settings = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": BASE, "tokenizer_name_or_path": "acme/words"}
    rewrite("adapter_config.json", settings)(folder)
    hub.publish(folder)
    assert json.loads(hub.files["adapter_config.json"])["tokenizer_name_or_path"] == "acme/words"


@pytest.mark.parametrize(
    ("base", "text"),
    [
        ("tiny", "A tiny adapter, tinyer than tiny-chat, of {base}."),
        ("out/tiny", "See about/tiny, out/tiny-v2 and out/tiny.bin, not {base}."),
    ],
)
def test_words_and_longer_names_are_not_taken_for_the_base_models_path(
    base: str, text: str, tmp_path: Path, hub: Hub
) -> None:
    (tmp_path / base).mkdir(parents=True)
    folder = adapter(tmp_path / "adapter", base=base)
    rewrite("README.md", f"---\nlanguage: en\n---\n# Mine\n\n{text.format(base=base)}\n")(folder)
    hub.publish(folder, metadata={"base_model": BASE})
    assert text.format(base=BASE if "/" in base else base) in hub.files["README.md"].decode()


CARDS = {
    "Norwegian": ("language: no", {"language": "no"}),
    "Norwegian among others": ("language: [en, no]", {"language": ["en", "no"]}),
    "what YAML 1.1 takes for true": ("pretty_name: on", {"pretty_name": "on"}),
    "true": ("inference: true", {"inference": True}),
    "nothing": ("language: null", {"language": None}),
    "nothing, by a mark": ("language: ~", {"language": None}),
    "nothing among tags": ("tags: [mine, null]", {"tags": ["mine", "lora", f"base_model:adapter:{BASE}"]}),
    "nothing deep within": ("widget: [{text: hi, output: null}]", {"widget": [{"text": "hi"}]}),
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
@pytest.mark.parametrize(("line", "expected"), CARDS.values(), ids=CARDS.keys())
def test_a_cards_metadata_are_read_as_the_hub_reads_them(
    line: str, expected: dict[str, Any], mark: str, ends: str, folder: Path, hub: Hub
) -> None:
    text = f"{mark}---\n{line}\n---\n# Mine\n".replace("\n", ends)
    (folder / "README.md").write_bytes(text.encode())
    card = hub.publish(folder, dry_run=True).plan.card
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    found = yaml.safe_load(front)
    assert {name: found.get(name) for name in expected} == expected
    assert "license: apache-2.0" in front
    assert body.strip() == "# Mine"


@pytest.mark.parametrize("line", ["license: mit", "license: [mit]"])
def test_the_licence_of_a_card_counts_with_a_byte_order_mark_and_in_a_list(line: str, folder: Path, hub: Hub) -> None:
    (folder / "README.md").write_text(f"\ufeff---\n{line}\n---\n# Mine\n", encoding="utf-8")
    assert hub.publish(folder, dry_run=True, metadata={"license": None}).plan.license == "mit"


def test_json_goes_out_without_a_byte_order_mark(folder: Path, hub: Hub) -> None:
    path = folder / "adapter_config.json"
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    hub.publish(folder)
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == BASE


FRONT = {
    "datasets": "datasets: /home/ada/data",
    "tags[0]": "tags: [/home/ada/m]",
    "model_name": "model_name: /home/ada/m",
    "widget[0].text": "widget: [{text: see /home/ada/m}]",
    "a name": "/home/ada/m: 1",
}


@pytest.mark.parametrize(("at", "line"), FRONT.items(), ids=FRONT.keys())
def test_a_path_in_the_metadata_of_a_card_of_ones_own_is_refused(at: str, line: str, folder: Path, hub: Hub) -> None:
    rewrite("README.md", f"---\n{line}\n---\n# Mine\n")(folder)
    with pytest.raises(AdapterRefused, match=re.escape(f"README.md: {at} contains a local path")) as caught:
        hub.publish(folder)
    assert [problem.check for problem in caught.value.problems] == ["local path"]
    assert hub.writes == []


PATHS = {
    "a home folder": "/home/ada/data",
    "a Mac's": "/Users/ada/data",
    "root's": "/root/.cache/x",
    "a passing one": "/tmp/run-7",
    "a mounted one": "/mnt/nas/data",
    "a mounted one of the usual name": "/mnt/data/acme/x",
    "Windows'": r"C:\Users\ada\data",
    "Windows' the other way": "d:/Users/ada/data",
    "a URL of a file": "file:///srv/data",
    "an option of a command": "-I/home/ada/include",
    "a trainer's link": "[m](https://huggingface.co//home/ada/m)",
    "Colab's drive": "/content/drive/MyDrive/m",
    "Kaggle's": "/kaggle/working/m",
    "a cluster's": "/scratch/ada/m",
    "a Mac's disk": "/Volumes/Data/m",
    "Windows' other disk": r"D:\models\m",
    "a line's end in JSON": r"{'log': 'done\n/home/ada/m'}",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("name", ["datasets", "tags", "title", "description", "limitations"])
def test_a_path_of_this_machine_anywhere_in_the_card_is_refused(name: str, path: str, folder: Path, hub: Hub) -> None:
    with pytest.raises(AdapterRefused, match=r"README.md: .* contains a local path") as caught:
        hub.publish(folder, metadata={name: f"from {path}, then"})
    assert {problem.check for problem in caught.value.problems} == {"local path"}
    assert hub.writes == []


def test_the_users_home_and_the_folders_around_the_adapter_are_known(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/srv/people/ada")
    folder = adapter(tmp_path / "clients" / "adapter")
    for path in ("/srv/people/ada/x", str(tmp_path / "clients" / "other")):
        with pytest.raises(AdapterRefused, match="contains a local path"):
            hub.publish(folder, metadata={"description": f"see {path}"})
    assert hub.publish(folder, metadata={"description": "see /srv/people/adam"}).commit


def test_a_path_that_is_on_this_disk_is_found_below_any_root(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/clients/acme" or exists(self))
    for path in ("/clients/acme", "/clients/acme/train.jsonl"):
        with pytest.raises(AdapterRefused, match=f"contains a local path, {path}"):
            hub.publish(folder, metadata={"description": f"from {path}, then"}, dry_run=True)
    for path in (
        "/clients/other/x",
        "/v1/models",
        "/usr/bin/env",
        "https://example.org/clients/acme/x",
        "a/clients/acme/x",
    ):
        assert path in hub.publish(folder, metadata={"description": f"from {path}, then"}, dry_run=True).plan.card


NO_PATHS = [
    "org/data", "home/ada", "acme/home-tmp", "https://example.org/home/ada", "https://example.org/a-/tmp/x?y=/home/b", "s3://b/mnt/x",
    "and/or", "km/h", "/", "the folder '/mnt/data' can be used", "a ~/ b", "1/2", "see /home for more",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_PATHS)
def test_ids_of_the_hub_and_urls_are_no_paths(text: str, folder: Path, hub: Hub) -> None:
    rewrite("tokenizer_config.json", {"chat_template": text})(folder)
    rewrite("NOTICE", text)(folder)
    metadata = {"datasets": [text], "description": text, "tags": [text], "training": {"data": text}}
    done = hub.publish(folder, metadata=metadata)
    assert f"| data | {text} |" in done.plan.card


def test_paths_among_the_trainings_settings_are_left_out(folder: Path, hub: Hub) -> None:
    training = {
        "output_dir": "/home/ada/clients/acme/out",
        "train_file": Path("/data/acme/train.jsonl"),
        "command": "train --data=/home/ada/acme data/x --lr 1",
        "files": ["acme/talk", "/mnt/nas/acme.csv"],
        "parts": [{"path": "/home/ada/acme"}],
        "learning_rate": 1e-4,
    }
    done = hub.publish(folder, metadata={"training": training})
    for name in ("output_dir", "train_file", "command", "parts"):
        assert f"| {name} | (a local path) |" in done.plan.card
        assert f"README.md: training's {name} contained a local path, which was removed" in done.plan.changed
    assert "| files | (a local path), acme/talk |" in done.plan.card
    assert "| learning_rate | 0.0001 |" in done.plan.card
    assert len(done.plan.changed) == 5
    assert "ada/acme" not in json.dumps(done.to_dict())


def test_no_option_of_the_command_gets_a_path_into_what_goes_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.toml").write_text('output_dir = "/home/ada/clients/acme/out"\n')
    command = [
        "hub",
        "publish",
        str(folder),
        REPO,
        "--license",
        "mit",
        "--training",
        str(tmp_path / "t.toml"),
        "--dry-run",
    ]
    assert main([*command, "--dataset", "/home/ada/data"]) == 1
    assert "README.md: datasets[0] contains a local path, /home/ada/data" in capsys.readouterr().err
    assert main(command) == 0
    assert "/home/ada" not in capsys.readouterr().out


def test_without_a_base_model_on_the_hub_its_licence_has_to_be_named(tmp_path: Path, hub: Hub) -> None:
    folder = adapter(tmp_path / "adapter", base="/home/ada/models/tiny")
    with pytest.raises(AdapterRefused, match="name it with base_model, or its licence with base_license"):
        hub.publish(folder)
    hub.publish(folder, metadata={"base_license": "mit"})
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] is None
    assert "base_model" not in hub.files["README.md"].decode().split("---")[1]


def test_files_that_are_fine_go_out_byte_for_byte(folder: Path, hub: Hub) -> None:
    hub.publish(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert hub.files[name] == (folder / name).read_bytes()


# Licences: the adapter's has to be there, and to go with the base model's.

LICENSES: dict[str, tuple[str | None, str | None, str | None]] = {
    # name: (base model's, adapter's, what is said against it)
    "a permissive base takes any": ("apache-2.0", "mit", None),
    "a permissive base takes a stricter one": ("mit", "cc-by-nc-4.0", None),
    "copyleft passes itself on": ("gpl-3.0", "gpl-3.0", None),
    "copyleft is not loosened": ("gpl-3.0", "mit", "requires the same licence for the adapter, not mit"),
    "restrictions on use are passed on": ("llama3.1", "llama3.1", None),
    "restrictions on use are not dropped": ("llama3.1", "apache-2.0", "is llama3.1, which requires"),
    "non-commercial stays so": ("cc-by-nc-4.0", "cc-by-nc-4.0", None),
    "non-commercial is not sold": (
        "cc-by-nc-4.0",
        "apache-2.0",
        "for non-commercial use only, and apache-2.0 allows more",
    ),
    "non-commercial may get stricter": ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", None),
    "non-commercial and no derivatives are two things": ("cc-by-nc-4.0", "cc-by-nd-4.0", "not those of cc-by-nd-4.0"),
    "share alike is not dropped": ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "under its own terms, not those of cc-by-nc-4.0"),
    "share alike is not for research": ("cc-by-nc-sa-4.0", "intel-research", "under its own terms"),
    "share alike stays so": ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0", None),
    "research is not only non-commercial": ("intel-research", "cc-by-nc-4.0", "under its own terms"),
    "research stays so": ("intel-research", "intel-research", None),
    "all of a list are passed on": ("[apache-2.0, llama3]", "llama3", None),
    "none of a list is dropped": ("[apache-2.0, llama3]", "apache-2.0", "is llama3, which requires"),
    "copyleft in a list is not dropped": ("[mit, gpl-3.0]", "mit", "is gpl-3.0, which requires"),
    "two that want themselves": ("[llama3, gpl-3.0]", "llama3", "is gpl-3.0, which requires"),
    "a font's licence wants itself": ("ofl-1.1", "mit", "is ofl-1.1, which requires"),
    "no licence": ("apache-2.0", "none", "license: is 'none', an unknown identifier"),
    "an unknown licence": ("apache-2.0", "unknown", "license: is 'unknown', an unknown identifier"),
    "a licence that nobody knows": ("apache-2.0", "no-such", "license: is 'no-such', an unknown identifier"),
    "a licence written wrongly": ("apache-2.0", "apache2", "(did you mean 'apache-2.0'?)"),
    "no derivatives": ("cc-by-nd-4.0", "cc-by-nd-4.0", "does not allow derived works to be published"),
    "nobody knows the base's": ("my-own-licence", "mit", "is my-own-licence, whose terms are unknown"),
    "the base has none": (None, "mit", "is unknown: name it with base_license"),
    "the base has `other`": ("other", "mit", "is other, whose terms are unknown"),
    "the adapter has none": ("apache-2.0", None, "license: is missing"),
    "`other` without a name": ("apache-2.0", "other", "needs license_name and license_link"),
}


@pytest.mark.parametrize(("base", "ours", "against"), LICENSES.values(), ids=LICENSES.keys())
def test_licence(base: str | None, ours: str | None, against: str | None, folder: Path) -> None:
    with Hub(base) as hub:
        if against is None:
            assert hub.publish(folder, metadata={"license": ours}).commit
            assert f"license: {ours}\n" in hub.files["README.md"].decode()
            return
        with pytest.raises(AdapterRefused, match=re.escape(against)) as caught:
            hub.publish(folder, metadata={"license": ours})
        assert {problem.check for problem in caught.value.problems} == {"licence"}
        assert hub.writes == []
        assert REPO not in hub.repos


def test_a_person_may_have_read_a_licence_that_nobody_knows(folder: Path) -> None:
    with Hub("my-own-licence") as hub:
        assert hub.publish(folder, license_checked=True).commit
    with Hub("cc-by-nd-4.0") as hub, pytest.raises(AdapterRefused, match="not allow derived works"):
        hub.publish(folder, license_checked=True)


SAID: dict[str, tuple[str | None, str, str, bool, str | None]] = {
    # name: (the Hub's, what base_license says, the adapter's, license_checked, what is said against it)
    "the Hub names none": (None, "mit", "mit", False, None),
    "the Hub says unknown": ("unknown", "mit", "mit", False, None),
    "the Hub agrees": ("apache-2.0", "apache-2.0", "mit", False, None),
    "what the Hub says is not talked away": (
        "cc-by-nc-4.0",
        "apache-2.0",
        "apache-2.0",
        False,
        "non-commercial use only",
    ),
    "nor by who has read it": ("cc-by-nc-4.0", "apache-2.0", "apache-2.0", True, "non-commercial use only"),
    "nor is one that nobody knows": (
        "my-own",
        "apache-2.0",
        "apache-2.0",
        False,
        "is my-own, whose terms are unknown",
    ),
    "which somebody may have read": ("my-own", "apache-2.0", "apache-2.0", True, None),
    "what is said holds too": ("mit", "gpl-3.0", "mit", False, "is gpl-3.0, which requires"),
}


@pytest.mark.parametrize(("base", "said", "ours", "checked", "against"), SAID.values(), ids=SAID.keys())
def test_base_license_counts_beside_what_the_hub_says(
    base: str | None, said: str, ours: str, checked: bool, against: str | None, folder: Path
) -> None:
    metadata = {"license": ours, "base_license": said, "license_checked": checked}
    with Hub(base) as hub:
        if against is None:
            assert hub.publish(folder, metadata=metadata).commit
            return
        with pytest.raises(AdapterRefused, match=against):
            hub.publish(folder, metadata=metadata)
        assert hub.writes == []


def test_a_dry_run_takes_base_license_and_says_that_the_hub_was_not_asked(folder: Path, hub: Hub) -> None:
    with pytest.raises(AdapterRefused, match="non-commercial use only"):
        hub.publish(folder, dry_run=True, metadata={"base_license": "cc-by-nc-4.0"})
    done = hub.publish(folder, dry_run=True, metadata={"base_license": "mit"})
    assert f"the licence of {BASE}" in done.plan.unchecked
    assert hub.requests == []


def test_the_licence_in_a_card_of_ones_own_counts(folder: Path, hub: Hub) -> None:
    rewrite("README.md", "---\nlicense: mit\n---\n# Mine\n")(folder)
    done = hub.publish(folder, metadata={"license": None})
    assert done.plan.license == "mit"


# What the caller says.

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"licence": "mit"}, "metadata has no 'licence'; did you mean 'license'"),
    "a metric without a dataset": ({"metrics": {"accuracy": 0.9}}, "name the dataset that accuracy was measured on"),
    "a metric without a number": ({"metrics": [{"name": "a", "value": "high"}]}, "is a name and a number"),
    "training that is a list": ({"training": [1]}, "training is a mapping of names to values"),
    "a base model that is none": ({"base_model": "../x"}, "is not a model id"),
    "a title that is a number": ({"title": 7}, "title is a text"),
    "tags that are a number": ({"tags": 5}, "tags is a text or a list of texts, not int"),
    "languages that are a number": ({"language": 5}, "language is a text or a list of texts, not int"),
    "datasets by name": ({"datasets": {"a/b": 1}}, "datasets is a text or a list of texts, not dict"),
    "metrics that are a number": ({"metrics": 5}, "metrics are numbers by name, or a list, not int"),
    "metrics that are a text": ({"metrics": "good"}, "metrics are numbers by name, or a list, not str"),
    "a metric that is no number": (
        {"metrics": {"a": float("nan")}, "datasets": "a/b"},
        "a is nan, not a finite number",
    ),
    "a metric without end": ({"metrics": {"a": float("inf")}, "datasets": "a/b"}, "a is inf, not a finite number"),
    "a split that is a number": (
        {"metrics": [{"name": "a", "value": 1, "dataset": "a/b", "split": 5}]},
        "is a name and a number",
    ),
}


@pytest.mark.parametrize(("metadata", "said"), WRONG.values(), ids=WRONG.keys())
def test_metadata_that_make_no_sense_are_a_value_error(
    metadata: dict[str, Any], said: str, folder: Path, hub: Hub
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)) as caught:
        hub.publish(folder, metadata=metadata)
    assert isinstance(caught.value, ValueError)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["tiny", "ada/../tiny", "/ada/tiny", "ada/tiny/more", "ada/ti--ny", "ada/tiny.git", "a b/c", ""]
)
def test_a_repositorys_name_that_is_none_is_refused_before_anything(name: str, folder: Path, hub: Hub) -> None:
    with pytest.raises(InvalidRequest):
        hub.publish(folder, repo_id=name)
    assert hub.requests == []


def test_a_folder_that_is_none_is_an_error_of_its_own_kind(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hub.publish(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        hub.publish(tmp_path / "file")
