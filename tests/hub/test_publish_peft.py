"""A real adapter, made with peft on the tiny chat model: published, downloaded again, and loaded."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.hub.adapter import PEFT_TYPES, read_adapter
from hf_gateway.hub.card import usage
from tests.support.publishing import BASE, REPO, TOKEN, Hub
from tests.support.tiny import MODEL

pytestmark = [
    pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed"),
    # One worker loads torch and peft for all of them.
    pytest.mark.xdist_group("peft"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder that peft wrote, and what the adapted model says to some tokens."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    # Not the usual zeros: an adapter that does nothing could be lost on the way.
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    model = get_peft_model(base, config).eval()
    folder = tmp_path_factory.mktemp("trained")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder, logits(model)


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(1, 33).reshape(1, -1)).logits


def test_an_adapter_comes_back_as_it_went_out(trained: tuple[Path, Any], tmp_path: Path) -> None:
    import torch
    from huggingface_hub import snapshot_download
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, expected = trained
    with Hub() as hub:
        done = hub.publish(folder, metadata={"base_model": BASE})
        assert str(MODEL) not in done.plan.card
        files = snapshot_download(REPO, endpoint=hub.url, token=TOKEN, cache_dir=tmp_path)
        assert Path(files).name == done.commit
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    assert not torch.equal(logits(base), expected)
    assert torch.equal(logits(PeftModel.from_pretrained(base, files)), expected)


def test_the_usage_code_of_the_card_runs_as_it_stands_there(trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = trained
    with Hub() as hub:
        hub.add_folder(BASE, MODEL, readme="---\nlicense: apache-2.0\n---\n")
        done = hub.publish(folder, metadata={"base_model": BASE})
        code = usage(read_adapter(folder, base_model=BASE), REPO)
        assert f"```python\n{code}\n```" in done.plan.card
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True, check=False, timeout=600
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Hello")


def test_a_saved_training_with_its_checkpoints_is_refused(trained: tuple[Path, Any], tmp_path: Path) -> None:
    import shutil

    import torch

    folder = Path(shutil.copytree(trained[0], tmp_path / "run"))
    torch.save({"lr": 1}, folder / "training_args.bin")
    torch.save({"state": torch.zeros(2)}, folder / "NOTICE")  # torch's zip, whatever its name
    (folder / "checkpoint-10").mkdir()
    torch.save({}, folder / "checkpoint-10" / "optimizer.pt")
    problems = read_adapter(folder).problems
    assert {(problem.check, problem.file) for problem in problems} == {
        ("optimizer", "training_args.bin"), ("pickle", "NOTICE"), ("checkpoint", "checkpoint-10"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["LoKrConfig", "IA3Config", "PromptTuningConfig", "VeraConfig"])
def test_adapters_of_other_kinds_pass_as_well(kind: str, tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {
        "LoKrConfig": {"target_modules": ["q_proj"]},
        "IA3Config": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        "PromptTuningConfig": {"num_virtual_tokens": 4},
        "VeraConfig": {"target_modules": ["q_proj"], "r": 4},
    }[kind]
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **options)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL), config).save_pretrained(tmp_path)
    found = read_adapter(tmp_path, base_model=BASE)
    assert found.problems == ()
    assert [file.path for file in found.files] == ["adapter_config.json", "adapter_model.safetensors"]


def test_every_kind_that_peft_has_is_known() -> None:
    from peft.utils.peft_types import PeftType

    assert {kind.value for kind in PeftType} == PEFT_TYPES
