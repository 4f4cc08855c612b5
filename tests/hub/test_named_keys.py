"""Keys that a name gives away: none of them goes out in an adapter's card, configs or weights, and no message repeats one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gateway.cli import main
from hf_gateway.hub.adapter import AdapterRefused
from hf_gateway.hub.named_keys import keys_in_text, settings_with_keys
from hf_gateway.hub.publish import publish
from tests.support.publishing import adapter, config, safetensors, tensors

NAMES = {
    "wandb_api_key": "0123456789abcdef0123456789abcdef01234567",
    "wandbApiKey": "0123456789abcdef0123456789abcdef01234567",
    "WANDB_KEY": "0123456789abcdef0123456789abcdef01234567",
    "aws_secret_access_key": "FAKEfakeFAKEfakeFAKEfakeFAKEfakeFAKEfake",
    "aws_access_key_id": "FAKEID0123456789",
    "password": "fake-horse-fake-battery",
    "db-passwd": "hunterhunter",
    "hf_token": "fake0token0of0nobody",
    "auth_token": "fakefakefakefake",
    "github_token": "fake0123456789fake",
    "client_secret": "Fake~Secret~0",
    "clientsecret": "fakefakefakefake",
    "PGPASSWORD": "correcthorse",
    "credentials": "ada:fakefake0",
    "encryption_passphrase": "correcthorse",
    "comet": "ZmFrZWtleWZha2VrZXk",
}

NESTED: dict[str, Any] = {
    "as it is": lambda name, value: {name: value},
    "in a section": lambda name, value: {"logging": {"to": {name: value}}},
    "in a list": lambda name, value: {name: [value, "x"]},
    "in a list of sections": lambda name, value: {"loggers": [{"kind": "x"}, {name: value}]},
    "as name and value": lambda name, value: {"settings": [{"name": name, "value": value}]},
    "as an option": lambda name, value: {"command": f"python train.py --{name} {value} --epochs 3"},
    "as an assignment": lambda name, value: {"environment": [f"EPOCHS=3 {name}={value}"]},
}

WRITTEN = {
    "a table": "| setting | value |\n|---|---|\n| {name} | {value} |",
    "a marked table": "| **{name}** | `{value}` |",
    "a list": "- `{name}`: `{value}`",
    "YAML": "{name}: {value}",
    "quoted YAML": '{name}: "{value}"',
    "code": '```python\n{name} = "{value}"\n```',
    "JSON": '{{"{name}": "{value}"}}',
    "a command": "python train.py --{name} {value} --epochs 3",
    "a shell": "export {name}={value}",
    "HTML": "<table><tr><td>{name}</td>\n<td>{value}</td></tr></table>",
    "in bold": "**{name}:** {value}",
}


def planned(folder: Path, training: Any = None) -> Any:
    metadata = {"license": "apache-2.0", "training": training or {}}
    return publish(folder, repo_id="ada/x", endpoint="http://127.0.0.1:9", dry_run=True, metadata=metadata).plan


@pytest.mark.parametrize("form", NESTED)
@pytest.mark.parametrize("name", NAMES)
def test_a_setting_of_the_training_that_is_a_key_is_left_out_and_named(name: str, form: str, tmp_path: Path) -> None:
    value = NAMES[name]
    if name == "comet" and form == "as an option":
        pytest.skip("nothing is called so")
    plan = planned(adapter(tmp_path / "a"), {"learning_rate": 1e-4, **NESTED[form](name, value)})
    assert value not in json.dumps(plan.to_dict())
    assert "learning_rate" in plan.card
    assert any("is left out: by its name it is a key" in line for line in plan.changed)


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("name", NAMES)
def test_a_key_in_the_text_of_a_card_is_refused_by_its_name(
    name: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, value = adapter(tmp_path / "a"), NAMES[name]
    if name == "comet" and form == "a command":
        pytest.skip("nothing is called so")
    (folder / "README.md").write_text(f"# Mine\n\nWhat I did.\n\n{WRITTEN[form].format(name=name, value=value)}\n")
    with pytest.raises(AdapterRefused) as caught:
        planned(folder)
    assert {(problem.check, problem.file) for problem in caught.value.problems} == {("secret", "README.md")}
    assert name in str(caught.value)
    assert main(["hub", "publish", str(folder), "ada/x", "--dry-run", "--license", "mit"]) == 1
    out, err = capsys.readouterr()
    assert value not in str(caught.value) + out + err


@pytest.mark.parametrize("place", ["adapter_config.json", "tokenizer_config.json", "weights", "metadata of the card"])
@pytest.mark.parametrize("name", NAMES)
def test_a_key_in_a_config_or_in_the_weights_is_refused_by_its_name(name: str, place: str, tmp_path: Path) -> None:
    folder, value = adapter(tmp_path / "a"), NAMES[name]
    if place == "weights":
        held = safetensors(tensors() | {"__metadata__": {name: value}})
        (folder / "adapter_model.safetensors").write_bytes(held)
    elif place == "metadata of the card":
        (folder / "README.md").write_text(f"---\nextra:\n  deep:\n    {name}: >-\n      {value}\n---\n# Mine\n")
    else:
        data = config() if place.startswith("adapter") else {}
        (folder / place).write_text(json.dumps({**data, "extra": {name: value}}))
    with pytest.raises(AdapterRefused) as caught:
        planned(folder)
    assert {problem.check for problem in caught.value.problems} == {"secret"}
    assert name in str(caught.value)
    assert value not in str(caught.value)


TRAINING = {
    "learning_rate": 1e-4, "max_new_tokens": 512, "num_key_value_heads": 8, "eos_token": "</s>", "pad_token": "<|endoftext|>",
    "label_key": "sentence_label", "text_key": "text", "use_auth_token": True, "hub_token": None, "tokenizer": "org/Model-7B-v2",
    "key": "loss", "token_type": "BPE", "dataset": "org/Passwords-10k", "report_to": ["wandb"],
    "run": "wandb-run-42", "wandb": "x8f3k2a1",
    "push_to_hub_token": "<PUSH_TO_HUB_TOKEN>", "api_key": "${OPENAI_API_KEY}", "secret": "***",
}  # fmt: skip

PROSE = """
# A model of secrets

The secret sauce: careful data curation and `tokenizer.json`.

| metric | value |
|---|---|
| tokens per second | 1200 |
| special token | `<|endoftext|>` |
| Key findings | none |
| api_key | your-key-here |

Pass `token=os.environ["HF_TOKEN"]`, or `api_key: str`, and set `pad_token = tokenizer.eos_token`.
Password: required for gated models. Access token: see https://huggingface.co/settings/tokens.
`export HF_TOKEN=hf_xxxxxxxx`. The keys: query, value and output.

```python
client = OpenAI(api_key=os.getenv("OPENAI_API_KEY"), base_url="http://localhost:8000/v1")
for key, value in tokens.items():
    key = value.strip()
    token = get_token()
```
"""


def test_settings_and_sentences_that_speak_of_keys_stay(tmp_path: Path) -> None:
    assert list(settings_with_keys(TRAINING)) == []
    assert list(keys_in_text(PROSE)) == []
    folder = adapter(tmp_path / "a")
    (folder / "README.md").write_text(PROSE)
    special = {"eos_token": {"content": "</s>"}, "image_token": "<image>", "additional_special_tokens": ["<|im_end|>"]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, "chat_template": "{% set token = 'A1b2C3d4E5' %}\n"})
    )
    plan = planned(folder, TRAINING)
    assert not [line for line in plan.changed if "is left out" in line]


names = st.sampled_from(["api_key", "apiKey", "SECRET", "user.password", "access-token", "PRIVATE_KEY"])
values = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+/=_.~-]{14,40}[A-Za-z0-9]", fullmatch=True).filter(
    lambda value: any(each.isdigit() for each in value) and not any(settings_with_keys({"x": value}))
)


@settings(max_examples=200, deadline=None)
@given(names, values, st.sampled_from(sorted(NESTED)), st.sampled_from(sorted(WRITTEN)))
def test_any_key_under_a_telling_name_is_seen(name: str, value: str, nested: str, written: str) -> None:
    assert list(settings_with_keys(NESTED[nested](name, value)))
    assert list(keys_in_text(WRITTEN[written].format(name=name, value=value)))


def test_a_long_text_is_looked_through_in_no_time() -> None:
    assert list(keys_in_text("a" * 200_000 + " b | " * 100_000 + "`" * 100_000)) == []
