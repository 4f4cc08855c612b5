"""A Whisper model that is made on the spot, tiny and with random weights of a fixed seed, as files that transformers.js reads."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

WORDS = ("<|endoftext|>", "<|startoftranscript|>", *(f"word{number}" for number in range(62)))
NEW_TOKENS = 12
_WIDTH, _HEADS, _LIMIT = 16, 2, 32


def whisper(folder: Path, *, seed: int = 3) -> Any:
    """Save a model; returns it as transformers has it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(seed)
    config = transformers.WhisperConfig(
        vocab_size=len(WORDS),
        d_model=_WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=_LIMIT,
        init_std=0.4,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )
    network = transformers.WhisperForConditionalGeneration(config).eval().requires_grad_(requires_grad=False)
    (folder / "onnx").mkdir(parents=True)
    config.architectures = ["WhisperForConditionalGeneration"]
    config.save_pretrained(folder)
    network.generation_config.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=WORDS[0], additional_special_tokens=[WORDS[1]]
    )
    made.save_pretrained(folder)
    with warnings.catch_warnings():
        # Its exporter that needs no package beside it is the older one, and says so.
        warnings.simplefilter("ignore")
        _export(network, folder / "onnx")
    return network


def tokens_of(network: Any, samples: "np.ndarray[Any, Any]") -> list[int]:
    """Return the tokens that transformers generates for samples at 16 kHz, with the first one that begins every text."""
    import transformers

    features = transformers.WhisperFeatureExtractor(feature_size=network.config.num_mel_bins)
    inputs = features(samples, sampling_rate=16_000, return_tensors="pt").input_features
    generated = network.generate(inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0].tolist()
    return generated if generated[0] == 1 else [1, *generated]


def _export(network: Any, folder: Path) -> None:
    """Write both halves as ONNX: the encoder, and the decoder with its cache, by the names that transformers.js feeds."""
    import torch

    decoder = network.model.decoder
    (layer,) = decoder.layers
    heads = _WIDTH // _HEADS

    def split(values: Any) -> Any:
        return values.view(1, -1, _HEADS, heads).transpose(1, 2)

    def attended(attention: Any, asked: Any, keys: Any, values: Any, mask: Any = None) -> Any:
        scores = split(attention.q_proj(asked)) @ keys.transpose(2, 3) * heads**-0.5
        shares = (scores if mask is None else scores.masked_fill(mask, -1e9)).softmax(-1)
        return attention.out_proj((shares @ values).transpose(1, 2).reshape(1, -1, _WIDTH))

    class Encoder(torch.nn.Module):
        def forward(self, input_features: Any) -> Any:
            return network.model.encoder(input_features).last_hidden_state

    class Decoder(torch.nn.Module):
        def forward(self, input_ids: Any, heard: Any, past_keys: Any, past_values: Any) -> Any:
            before, own, cross = past_keys.shape[2], layer.self_attn, layer.encoder_attn
            places = torch.arange(before, before + input_ids.shape[1])
            states = decoder.embed_tokens(input_ids) + decoder.embed_positions.weight[places]
            asked = layer.self_attn_layer_norm(states)
            keys = torch.cat([past_keys, split(own.k_proj(asked))], 2)
            values = torch.cat([past_values, split(own.v_proj(asked))], 2)
            later = torch.arange(keys.shape[2])[None, :] > places[:, None]
            states = states + attended(own, asked, keys, values, later)
            asked = layer.encoder_attn_layer_norm(states)
            states = states + attended(cross, asked, split(cross.k_proj(heard)), split(cross.v_proj(heard)))
            asked = layer.final_layer_norm(states)
            states = states + layer.fc2(torch.nn.functional.gelu(layer.fc1(asked)))
            return network.proj_out(decoder.layer_norm(states)), keys, values

    sound = torch.zeros(1, network.config.num_mel_bins, 2 * network.config.max_source_positions)
    past = torch.zeros(1, _HEADS, 2, heads)
    heard = torch.zeros(1, network.config.max_source_positions, _WIDTH)
    cache = ["past_key_values.0.decoder.key", "past_key_values.0.decoder.value"]
    now = [name.replace("past_key_values", "present") for name in cache]
    options: dict[str, Any] = {"dynamo": False, "opset_version": 17}
    torch.onnx.export(
        Encoder(),
        (sound,),
        str(folder / "encoder_model.onnx"),
        input_names=["input_features"],
        output_names=["last_hidden_state"],
        **options,
    )
    torch.onnx.export(
        Decoder(),
        (torch.zeros(1, 3, dtype=torch.long), heard, past, past),
        str(folder / "decoder_model_merged.onnx"),
        input_names=["input_ids", "encoder_hidden_states", *cache],
        output_names=["logits", *now],
        dynamic_axes={"input_ids": {1: "t"}, "logits": {1: "t"}, **{name: {2: "p"} for name in (*cache, *now)}},
        **options,
    )
