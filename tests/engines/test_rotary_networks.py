"""Graphs built from weights for families with rotary positions: the vectors of transformers, or a refusal by name."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target
from hf_gateway.engines.networks.build import build_refusal
from hf_gateway.errors import EngineFailed
from tests.servers.hub import FakeHub, HubModel
from tests.support.graph_vectors import GRAPHS, change, embed, embed_without_torch, rewrite, worst_cosine
from tests.support.tiny_encoders import TEXTS, encoder, reference

pytestmark = pytest.mark.xdist_group("torch")

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "modernbert": {
        "two windows shorter than the text": {"num_hidden_layers": 5, "local_attention": 6},
        "biases everywhere, an odd middle": {
            "hidden_size": 24,
            "num_attention_heads": 4,
            "intermediate_size": 9,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "local_attention": 3,
        },
        "layers of any kind, other bases": {
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "local_attention": 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "linear", "rope_theta": 90.0, "factor": 3.0},
            },
            "hidden_activation": "silu",
            "norm_eps": 1e-3,
        },
    },
    "qwen3": {
        "heads of six queries for two keys, wider than the tokens": {
            "pooling": "lasttoken",
            "hidden_size": 24,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "num_hidden_layers": 3,
        },
        "windows in the last layers, biases": {
            "pooling": "lasttoken",
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "attention_bias": True,
        },
        "an odd width and middle, scaled positions, the mean": {
            "hidden_size": 33,
            "intermediate_size": 7,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 4,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 1.5},
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-2,
        },
        "padding on the left": {"pooling": "lasttoken", "tokenizer_settings": {"padding_side": "left"}},
    },
    "gemma3": {
        "all sides, five windows and one without": {
            "use_bidirectional_attention": True,
            "num_hidden_layers": 6,
            "sliding_window": 6,
        },
        "causal, six queries for two keys, biases": {
            "pooling": "lasttoken",
            "hidden_size": 24,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "num_hidden_layers": 3,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "attention_bias": True,
            "query_pre_attn_scalar": 7,
        },
        "an odd width and middle, positions scaled in one kind": {
            "use_bidirectional_attention": True,
            "hidden_size": 33,
            "intermediate_size": 7,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 4,
            "sliding_window": 3,
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 300.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
            },
            "hidden_activation": "silu",
        },
    },
    "nomic_bert": {
        "four heads, an odd middle": {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 9},
        "one head, three layers, another base and gate": {
            "hidden_size": 22,
            "num_attention_heads": 1,
            "num_hidden_layers": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 77.0},
            "hidden_act": "gelu",
        },
        "scaled positions, another epsilon": {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.5},
            "layer_norm_eps": 1e-3,
        },
    },
    "gte": {
        "four heads, an odd middle": {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 9},
        "no token types, scaled positions": {
            "type_vocab_size": 0,
            "num_hidden_layers": 3,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 40.0, "factor": 1.3},
        },
        "one head, another epsilon and gate": {
            "hidden_size": 22,
            "num_attention_heads": 1,
            "layer_norm_eps": 1e-3,
            "hidden_act": "silu",
        },
    },
}
REFUSALS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "modernbert": [
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0}}},
            "its rotary positions are scaled by 'yarn', which is not one of default, linear",
        ),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "are scaled by 'dynamic'"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_parameters that are not given for each kind of attention"),
        ({"rope_parameters": [1]}, r"the rotary settings \[1\], which are not a JSON object"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor=0.0, not a number above 0"),
        ({"rope_scaling": {"mrope_section": [4]}}, r"have the setting mrope_section=\[4\], which is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5, which is not supported"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "'chunked_attention' in layer_types, which is not"),
        ({"layer_types": ["full_attention"]}, r"layer_types=\['full_attention'\], not 2 names"),
        ({"num_attention_heads": 32}, "its heads have 1 values, an odd number"),
        ({"head_dim": 8}, "head_dim=8, which is not supported"),
        ({"max_position_embeddings": 9_999_999}, "max_position_embeddings=9999999, too many for rotary positions"),
        ({"norm_bias": "no"}, "norm_bias='no', neither true nor false"),
        ({"norm_bias": True}, "the tensor 'embeddings.norm.bias' is missing"),
        ({"hidden_activation": "mish"}, "hidden_activation='mish', which is not one of gelu"),
        ({"num_hidden_layers": 1, "layer_types": None}, "have the tensor 'layers.1.attn.Wo.weight' and 5 more"),
    ],
    "qwen3": [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "are scaled by 'yarn'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "are scaled by 'longrope'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"is_causal": False}, "is_causal=False, which is not supported"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention=True, which is not supported"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3, which does not divide 2"),
        ({"head_dim": 10**9}, "head_dim=1000000000, not a whole number from 1 to"),
        ({"head_dim": 8}, r"the tensor 'layers.0.self_attn.q_proj.weight' has the shape \(32, 32\), but by"),
        ({"head_dim": 9_999_998}, "max_position_embeddings=64, too many for rotary positions"),
        ({"attention_bias": True}, "the tensor 'layers.0.self_attn.q_proj.bias' is missing"),
        ({"layer_types": ["sliding_attention"] * 2}, "use_sliding_window=False, which is not supported"),
        (
            {"layer_types": None, "use_sliding_window": True, "max_window_layers": 0},
            "max_window_layers=0, not a whole number",
        ),
    ],
    "gemma3": [
        ({"rope_parameters": {"sliding_attention": {"rope_type": "llama3", "factor": 4.0}}}, "are scaled by 'llama3'"),
        ({"layer_types": ["full_attention"] * 2, "rope_scaling": {"rope_type": "dynamic"}}, "are scaled by 'dynamic'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0, which is not supported"),
        ({"use_bidirectional_attention": "vision"}, "use_bidirectional_attention='vision', neither true nor false"),
        ({"use_bidirectional_attention": True, "is_causal": True}, "is_causal=True, which is not supported"),
        ({"sliding_window": None}, "sliding_window=None, not a whole number"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0, not a number above 0"),
        ({"num_hidden_layers": 3, "layer_types": None}, "the tensor 'layers.2.input_layernorm.weight' is missing"),
        ({"num_hidden_layers": 1, "layer_types": None}, "have the tensor 'layers.1.input_layernorm.weight' and 12"),
    ],
    "nomic_bert": [
        ({"rotary_scaling_factor": 2.0}, "rotary_scaling_factor=2.0, which is not supported"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "are scaled by 'dynamic'"),
        ({"num_experts": 8}, "num_experts=8, which is not supported"),
        ({"prenorm": True}, "prenorm=True, which is not supported"),
        ({"qkv_proj_bias": True}, "qkv_proj_bias=True, which is not supported"),
        ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved=True, which is not supported"),
        ({"n_embd": 64}, "both n_embd=64 and hidden_size=32"),
        ({"n_embd": 32, "activation_function": "geglu", "rotary_emb_fraction": 1.0}, "'activation_function': 'geglu'"),
        ({"n_embd": 32, "activation_function": "swiglu"}, "'rotary_emb_fraction': None"),
        ({"rotary_emb_base": 500}, "both rotary_emb_base=500.0 and rope_theta=1000.0"),
        ({"num_hidden_layers": 1}, "have the tensor 'encoder.layers.1.attn.Wqkv.weight' and 8 more"),
    ],
    "gte": [
        (
            {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}},
            "have the setting mixed_b=0.6, which is not supported",
        ),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
            "are scaled by 'dynamic', which is not one of .* ntk",
        ),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type='rms_norm', which is not supported"),
        ({"logn_attention_scale": True}, "logn_attention_scale=True, which is not supported"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type='absolute', which is not supported"),
        ({"pack_qkv": False}, "the tensor 'encoder.layer.0.attention.q_proj.weight' is missing"),
        ({"type_vocab_size": 0}, "have the tensor 'embeddings.token_type_embeddings.weight'"),
        ({"max_position_embeddings": 9_999_999}, "max_position_embeddings=9999999, too many"),
    ],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each family."""
    return {family: encoder(tmp_path_factory.mktemp("rotary") / family, family) for family in SHAPES}


@pytest.mark.parametrize(("family", "shape"), [(family, shape) for family in SHAPES for shape in SHAPES[family]])
def test_a_family_in_any_shape_has_the_vectors_of_transformers(
    family: str, shape: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hf_gateway.engines")
    folder = encoder(tmp_path / "made", family, seed=7, **SHAPES[family][shape])
    expected = reference(folder).encode(list(TEXTS))
    for engine in GRAPHS:
        assert worst_cosine(embed(folder, engine), expected) >= 0.99999, engine
    assert "converting" not in caplog.text


def test_modernbert_files_as_older_transformers_wrote_them_with_a_head_are_known(tmp_path: Path) -> None:
    folder = encoder(
        tmp_path / "made",
        "modernbert",
        num_hidden_layers=4,
        local_attention=4,
        layer_types=["full_attention", "sliding_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 700.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
        },
    )
    expected = reference(folder).encode(list(TEXTS))
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 700.0, "local_rope_theta": 30.0}
    change(folder, layer_types=None, rope_parameters=None, position_embedding_type="absolute", **older)
    rewrite(
        folder,
        lambda found: (
            {f"model.{name}": each for name, each in found.items()}
            | {"decoder.bias": found["final_norm.weight"].clone()}
        ),
    )
    for engine in GRAPHS:
        assert worst_cosine(embed(folder, engine), expected) >= 0.99999, engine


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As on the Hub: in bfloat16, with the names of a chat model, and padding on the left."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize

    settings = {"padding_side": "left"}
    folder = encoder(
        tmp_path_factory.mktemp("hub") / "qwen3",
        "qwen3",
        pooling="lasttoken",
        after=[Normalize()],
        num_hidden_layers=3,
        tokenizer_settings=settings,
    )
    theta = {"rope_theta": 1_000_000, "rope_scaling": None, "rope_parameters": None}
    change(folder, architectures=["Qwen3ForCausalLM"], layer_types=None, dtype="bfloat16", **theta)
    rewrite(folder, lambda found: {f"model.{name}": each.to(torch.bfloat16) for name, each in found.items()})
    return folder


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_causal_model_embeds_by_its_last_token_without_torch(qwen3: Path, engine: str) -> None:
    name, vectors, log = embed_without_torch(str(qwen3), engine)
    assert name == engine
    assert worst_cosine(vectors, reference(qwen3).encode(list(TEXTS))) >= 0.99999
    assert "its tokenizer pads" not in log


def test_a_causal_model_without_modules_is_pooled_as_sentence_transformers_pools_it(
    qwen3: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(qwen3, tmp_path / "bare"))
    for name in ("modules.json", "config_sentence_transformers.json"):
        (bare / name).unlink()
    expected = reference(bare).encode(list(TEXTS))
    for engine in GRAPHS:
        assert worst_cosine(embed(bare, engine), expected) >= 0.99999, engine


def test_a_causal_model_that_is_not_built_is_left_to_torch(qwen3: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(qwen3, tmp_path / "scaled"))
    change(model, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    served = Gateway(str(model), [Target("local", options={"dtype": "fp32"})], truncate=True)
    assert worst_cosine(served.embed(list(TEXTS)).vectors, reference(model).encode(list(TEXTS))) >= 0.99999
    assert served.candidates[0].ability.engine().name == "sentence-transformers"


@pytest.mark.parametrize("engine", GRAPHS)
def test_gemma_with_layers_after_the_pooling_embeds_without_torch(tmp_path: Path, engine: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Normalize

    torch.manual_seed(3)
    sizes = ((32, 96), (96, 32))
    dense = [Dense(wide, made, bias=False, activation_function=torch.nn.Identity()) for wide, made in sizes]
    settings = {"use_bidirectional_attention": True, "sliding_window": 8, "num_hidden_layers": 6}
    folder = encoder(tmp_path / "made", "gemma3", after=[*dense, Normalize()], **settings)
    # As on the Hub: the settings' older names, and bfloat16.
    older = {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "rope_scaling": None}
    change(folder, rope_parameters=None, layer_types=None, dtype="bfloat16", **older)
    for path in (folder, folder / "2_Dense", folder / "3_Dense"):
        halved = {name: each.to(torch.bfloat16) for name, each in load_file(path / "model.safetensors").items()}
        save_file(halved, path / "model.safetensors")
    name, vectors, _ = embed_without_torch(str(folder), engine)
    assert name == engine
    assert worst_cosine(vectors, reference(folder).encode(list(TEXTS))) >= 0.99999


CODE = {"AutoConfig": "org/impl--configuration.Own", "AutoModel": "org/impl--modeling.Own"}
"""As a config.json names code of its own."""


@pytest.mark.parametrize("engine", GRAPHS)
def test_nomics_files_for_its_own_code_embed_without_that_code_and_torch(tmp_path: Path, engine: str) -> None:
    base = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    folder = encoder(tmp_path / "made", "nomic_bert", max_position_embeddings=128, num_hidden_layers=3, **base)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 100, "do_lower_case": False}))
    expected = reference(folder).encode(list(TEXTS))
    path = folder / "config.json"
    kept = {name: json.loads(path.read_text())[name] for name in ("vocab_size", "type_vocab_size", "pad_token_id")}
    own = {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "n_embd": 32,
        "n_head": 2,
        "n_inner": 64,
        "n_layer": 3,
        "n_positions": 128,
        "max_position_embeddings": 64,
        "layer_norm_epsilon": 1e-12,
        "activation_function": "swiglu",
        "rotary_emb_base": 500,
        "rotary_emb_fraction": 1.0,
        "rotary_scaling_factor": None,
        "use_rms_norm": None,
        "causal": False,
        "auto_map": CODE,
    }
    path.write_text(json.dumps(kept | own))
    rewrite(folder, lambda found: {f"bert.{name}": each for name, each in found.items()})
    name, vectors, _ = embed_without_torch(str(folder), engine)
    assert name == engine
    assert worst_cosine(vectors, expected) >= 0.99999


@pytest.mark.parametrize("family", ["qwen3", "gte"])
def test_a_model_of_the_hub_is_downloaded_as_safetensors_and_embeds_without_torch_and_its_code(
    models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    model = Path(shutil.copytree(models[family], tmp_path / "model"))
    expected = reference(model).encode(list(TEXTS))
    change(model, **({"auto_map": CODE} if family == "gte" else {"architectures": ["Qwen3ForCausalLM"]}))
    (model / "modeling.py").write_text("raise SystemExit('it was run')")
    with FakeHub({"org/model": HubModel(model)}) as hub:
        homes = {"HF_HOME": str(tmp_path / "home"), "HF_GATEWAY_HOME": str(tmp_path / "gw")}
        _, vectors, _ = embed_without_torch("org/model", HF_ENDPOINT=hub.url, **homes)
    assert worst_cosine(vectors, expected) >= 0.99999
    assert not list((tmp_path / "home").rglob("*.py"))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "apart"])
@pytest.mark.parametrize("engine", GRAPHS)
def test_gtes_files_for_its_own_code_embed_without_that_code_and_torch(
    tmp_path: Path, engine: str, packed: bool
) -> None:
    # Its code scales by "ntk" with base · factor and frequencies / factor^(2 / k), of heads with k = 16 values here.
    scaled = {"rope_type": "linear", "rope_theta": 20.0 * 8.0, "factor": 8.0 ** (2 / 16)}
    folder = encoder(tmp_path / "made", "gte", pooling="cls", rope_parameters=scaled)
    expected = reference(folder).encode(list(TEXTS))
    own = {"rope_parameters": None, "rope_theta": 20.0, "rope_scaling": {"factor": 8.0, "type": "ntk"}}
    change(folder, model_type="new", auto_map=CODE, pack_qkv=packed, architectures=["NewModel"], **own)

    def named(found: dict[str, Any]) -> dict[str, Any]:
        made = {}
        for name, each in found.items():
            if packed or ".qkv_proj." not in name:
                made[f"new.{name}"] = each
            else:
                parts = zip("qkv", each.chunk(3), strict=True)
                made |= {f"new.{name.replace('qkv', letter)}": part.clone() for letter, part in parts}
        return made | {"classifier.weight": found["embeddings.LayerNorm.weight"].clone()}

    rewrite(folder, named)
    name, vectors, _ = embed_without_torch(str(folder), engine)
    assert name == engine
    assert worst_cosine(vectors, expected) >= 0.99999


def test_code_of_its_own_in_another_family_is_refused(tmp_path: Path) -> None:
    model = encoder(tmp_path / "made", "bert")
    change(model, auto_map=CODE)
    with pytest.raises(EngineFailed, match="it needs custom code"):
        embed(model, "openvino")


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [(family, *case) for family, cases in REFUSALS.items() for case in cases],
    ids=lambda value: value if isinstance(value, str) and value in REFUSALS else "",
)
def test_a_configuration_that_is_not_understood_is_refused_by_name(
    models: dict[str, Path], tmp_path: Path, family: str, changes: dict[str, Any], reason: str
) -> None:
    model = Path(shutil.copytree(models[family], tmp_path / "model"))
    change(model, **changes)
    with pytest.raises(EngineFailed, match=reason):
        raise build_refusal(model) or AssertionError("it was built")
