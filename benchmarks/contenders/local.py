"""Models in the process: sentence-transformers and what the frameworks make of it, ours, and the machine's matmul peak."""

from typing import Any

from benchmarks.contenders.calls import Calls

BATCH_TEXTS = 32
"""sentence-transformers' own default, passed to every contender that accepts one."""


def sentence_transformers(folder: str, dtype: str | None = None) -> Calls:
    """`SentenceTransformer.encode`, batch 32. dtype: of the weights; None for fp32."""
    import torch
    from sentence_transformers import SentenceTransformer

    model_kwargs = {"dtype": getattr(torch, dtype)} if dtype else {}
    model = SentenceTransformer(folder, device="cpu", model_kwargs=model_kwargs)

    def encode(texts: Any) -> Any:
        return model.encode(texts, batch_size=BATCH_TEXTS, show_progress_bar=False)

    return Calls(query=encode, documents=encode)


def langchain_huggingface(folder: str) -> Calls:
    """LangChain's `HuggingFaceEmbeddings`; its async forms run the blocking ones in threads."""
    from langchain_huggingface import HuggingFaceEmbeddings

    model = HuggingFaceEmbeddings(
        model_name=folder, model_kwargs={"device": "cpu"}, encode_kwargs={"batch_size": BATCH_TEXTS}
    )
    return Calls(query=model.embed_query, aquery=model.aembed_query, documents=model.embed_documents)


def llamaindex_huggingface(folder: str) -> Calls:
    """LlamaIndex's `HuggingFaceEmbedding`; its async forms block."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=folder, device="cpu", embed_batch_size=BATCH_TEXTS)
    return Calls(
        query=model.get_query_embedding, aquery=model.aget_query_embedding, documents=model.get_text_embedding_batch
    )


def gateway(model: str, cache: Any = None, **options: Any) -> Calls:
    """`Gateway` with the target `local` and these options of it."""
    from hf_gateway import Gateway, Target

    made = Gateway(model, [Target("local", options=options)], cache=cache)

    async def aquery(text: str) -> Any:
        return (await made.aembed([text], role="query")).vectors

    return Calls(
        query=lambda text: made.embed([text], role="query").vectors,
        aquery=aquery,
        documents=lambda texts: made.embed(texts).vectors.tolist(),
        note=lambda: _engine(made),
    )


def langchain_gateway(model: str) -> Calls:
    """Ours for LangChain, as it comes."""
    from langchain_hf_gateway import HFGatewayEmbeddings

    made = HFGatewayEmbeddings(model=model, targets=["local"])
    return Calls(
        query=made.embed_query,
        aquery=made.aembed_query,
        documents=made.embed_documents,
        note=lambda: _engine(made._gateway),
    )


def llamaindex_gateway(model: str) -> Calls:
    """Ours for LlamaIndex, as it comes."""
    from llamaindex_hf_gateway import HFGatewayEmbedding

    made = HFGatewayEmbedding(model_name=model, targets=["local"])
    return Calls(
        query=made.get_query_embedding,
        aquery=made.aget_query_embedding,
        documents=made.get_text_embedding_batch,
        note=lambda: _engine(made._gateway),
    )


def exported(folder: str, to: str) -> Calls:
    """Write the model as fastembed reads it: its graph by torch's exporter to ONNX, and the tokenizer's files."""
    import json
    import shutil
    from pathlib import Path

    import torch
    from transformers import AutoModel

    made, source = Path(to), Path(folder)
    made.mkdir()
    for path in source.glob("*.json"):
        shutil.copy(path, made)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    length = json.loads((source / "sentence_bert_config.json").read_text())["max_seq_length"]
    (made / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": length}))
    names, given = ["input_ids", "attention_mask", "token_type_ids"], torch.ones(2, 8, dtype=torch.long)

    class ByName(torch.nn.Module):  # transformers' own signature begins with other arguments
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, attn_implementation="eager")

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).last_hidden_state

    torch.onnx.export(
        ByName().eval(),
        (given, given, given),
        str(made / "model.onnx"),
        dynamo=False,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in [*names, "last_hidden_state"]},
        opset_version=17,
    )
    return Calls()


def fastembed(folder: str) -> Calls:
    """The `TextEmbedding` of fastembed over the model's ONNX file, with its own batches of 256 texts."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/all-MiniLM-L6-v2",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/all-MiniLM-L6-v2"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("local/all-MiniLM-L6-v2", specific_model_path=folder)
    return Calls(
        query=lambda text: next(iter(model.query_embed(text))),
        documents=lambda texts: [vector.tolist() for vector in model.embed(texts)],
        note=lambda: {"engine": "onnxruntime"},
    )


def infinity(folder: str) -> Calls:
    """The engine of infinity on torch, called from a thread beside its event loop, as its `SyncEngineArray` does."""
    from infinity_emb import EngineArgs, SyncEngineArray

    engine = SyncEngineArray.from_args(
        [EngineArgs(model_name_or_path=folder, engine="torch", device="cpu", dtype="float32", batch_size=BATCH_TEXTS)]
    )
    name = engine.async_engine_array[0].engine_args.served_model_name

    def embed(texts: list[str]) -> Any:
        vectors, _ = engine.embed(model=name, sentences=texts).result()
        return [vector.tolist() for vector in vectors]

    return Calls(query=lambda text: embed([text])[0], documents=embed)


def _engine(gateway: Any) -> dict[str, Any]:
    """Return which engine serves, and in which precision; the gateway's public methods do not return it."""
    used = gateway.candidates[0].ability.engine()
    return {"engine": used.name, "precision": getattr(used, "precision", "fp32")}


def langchain_cached(model: str, folder: str) -> Calls:
    """LangChain's `CacheBackedEmbeddings` over a local file store, as its documentation shows it, over ours."""
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import LocalFileStore

    from langchain_hf_gateway import HFGatewayEmbeddings

    under = HFGatewayEmbeddings(model=model, targets=["local"])
    made = CacheBackedEmbeddings.from_bytes_store(
        under, LocalFileStore(folder), namespace=model, key_encoder="blake2b", query_embedding_cache=True
    )
    return Calls(query=made.embed_query, documents=made.embed_documents)


def llamaindex_cached(model: str) -> Calls:
    """LlamaIndex's `embeddings_cache`, which is in memory here, over ours: the class asks its store for each text."""
    from llama_index.core.storage.kvstore import SimpleKVStore

    from llamaindex_hf_gateway import HFGatewayEmbedding

    made = HFGatewayEmbedding(model_name=model, targets=["local"], embeddings_cache=SimpleKVStore())
    return Calls(query=made.get_query_embedding, documents=made.get_text_embedding_batch)


def matmul_torch(dtype: str, shapes: list[list[int]], repeats: int) -> Calls:
    """Products (m, k) x (k, n) by torch, weights laid out as its linear layers have them."""
    import torch

    kind = getattr(torch, dtype)
    pairs = [(torch.randn(m, k, dtype=kind), torch.randn(n, k, dtype=kind)) for m, k, n in shapes]

    def multiply() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                for left, right in pairs:
                    torch.nn.functional.linear(left, right)

    return Calls(alone=multiply)


def matmul_openvino(dtype: str, shapes: list[list[int]], repeats: int) -> Calls:
    """Products (m, k) x (k, n) by OpenVINO, each a model of its own with constant weights, which it packs beforehand."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    core = ov.Core()
    draw = np.random.default_rng(0)
    requests = []
    for m, k, n in shapes:
        given = ops.parameter([m, k], np.float32)
        weights = ops.constant(draw.standard_normal((k, n), dtype=np.float32))
        model = ov.Model([ops.matmul(given, weights, False, False)], [given])
        hints = {
            "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[dtype],
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(model, "CPU", hints).create_infer_request()
        request.set_input_tensor(ov.Tensor(draw.standard_normal((m, k), dtype=np.float32)))
        requests.append(request)

    def multiply() -> None:
        for _ in range(repeats):
            for request in requests:
                request.infer()

    return Calls(alone=multiply)
