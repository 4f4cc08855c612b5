"""Adapters as peft writes them, made by hand and so in no time, and the Hub they are published to."""

import json
import struct
from pathlib import Path
from typing import Any

from hf_gateway.hub.publish import Published, publish
from hf_gateway.values.secret import Secret
from tests.servers.hub_commits import FakeHubCommits, Repo, User

TOKEN, READER, STRANGER = (
    "hf_AdasWriteToken0123456789ab",
    "hf_AdasReadToken0123456789abc",
    "hf_BobsWriteToken0123456789ab",
)
BASE, REPO = "acme/tiny-chat", "ada/tiny-adapter"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
NAMES = (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight")

# What peft writes into its card, of which nobody has filled in anything.
PEFT_CARD = """\
---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags:
- base_model:adapter:{base}
- lora
- transformers
---

# Model Card for Model ID

- **Developed by:** [More Information Needed]
"""


def tensors(names: tuple[str, ...] = NAMES, *, numbers: int = 8) -> dict[str, Any]:
    """The header of a safetensors file with these tensors, each of so many float32."""
    size = 4 * numbers
    found = {
        name: {"dtype": "F32", "shape": [numbers], "data_offsets": [index * size, (index + 1) * size]}
        for index, name in enumerate(names)
    }
    return {"__metadata__": {"format": "pt"}, **found}


def safetensors(header: Any = None, data: bytes | None = None) -> bytes:
    """A safetensors file."""
    header = tensors() if header is None else header
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if data is None:
        rows = [] if isinstance(header, bytes) else [entry for name, entry in header.items() if name != "__metadata__"]
        data = b"\x00\x00\x80\x3f" * sum(entry["shape"][0] for entry in rows)
    return struct.pack("<Q", len(text)) + text + data


def config(**changes: Any) -> dict[str, Any]:
    """An adapter_config.json; None takes a setting away."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": BASE,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": 4,
        "revision": None,
        "target_modules": ["v_proj", "q_proj"],
        "task_type": "CAUSAL_LM",
    } | changes


def adapter(folder: Path, *, base: str | None = BASE, **files: Any) -> Path:
    """Write an adapter's folder, as save_pretrained does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(
        json.dumps(config(base_model_name_or_path=base), indent=2, sort_keys=True)
    )
    (folder / "adapter_model.safetensors").write_bytes(safetensors())
    (folder / "README.md").write_text(PEFT_CARD.format(base=base))
    return folder


class Hub(FakeHubCommits):
    """A Hub with the base model, Ada who may write, and Bob who may write elsewhere."""

    def __init__(self, base_license: str | None = "apache-2.0") -> None:
        """Start it. base_license: the base model's."""
        super().__init__({TOKEN: User("ada"), READER: User("ada", role="read"), STRANGER: User("bob")})
        card = f"---\nlicense: {base_license}\n---\n# tiny\n" if base_license else "# tiny\n"
        self.repos[BASE] = Repo(files={"README.md": card.encode(), "config.json": b"{}"})

    def publish(self, folder: Path, token: str | None = TOKEN, **options: Any) -> Published:
        """Publish to it."""
        metadata = {"license": "apache-2.0", **options.pop("metadata", {})}
        options.setdefault("repo_id", REPO)
        credential = Secret(token) if token else None
        return publish(folder, endpoint=self.url, credential=credential, metadata=metadata, **options)

    @property
    def files(self) -> dict[str, bytes]:
        """What stands in the repository now."""
        return {name: blob.content for name, blob in self.repos[REPO].head.files.items()}
