"""Makes `init_chat_model("hf_gateway:<model>")` and `init_embeddings("hf_gateway:<model>")` work.

LangChain has no public hook for it, so it is opt-in.
"""

from typing import Any


def register() -> None:
    """Add `hf_gateway` to the providers of `langchain.chat_models` and `langchain.embeddings`; may be repeated.

    Example:
        ```python
        from langchain.chat_models import init_chat_model

        from langchain_hf_gateway import register

        register()
        model = init_chat_model("hf_gateway:meta-llama/Llama-3.1-8B-Instruct", targets=["hf:cerebras", "ollama:llama3.1"])
        ```

    Raises:
        ImportError: langchain is not installed.
        RuntimeError: this version of langchain keeps its providers elsewhere; use the classes themselves then.
    """
    try:
        from langchain.chat_models import base as chat_models
        from langchain.embeddings import base as embeddings
    except ImportError as error:
        raise ImportError("register() needs langchain: pip install langchain") from error
    places = [
        (chat_models, "init_chat_model", "ChatHFGateway"),
        (embeddings, "init_embeddings", "HFGatewayEmbeddings"),
    ]
    tables = [_table(module, function, name) for module, function, name in places]
    for providers, (_, _, name) in zip(tables, places, strict=True):
        providers["hf_gateway"] = ("langchain_hf_gateway", name, _make)


def _table(module: Any, function: str, name: str) -> dict[str, Any]:
    """Return the module's providers: name → (module, class, factory). Raises RuntimeError."""
    providers = getattr(module, "_BUILTIN_PROVIDERS", None)
    if not isinstance(providers, dict) or not all(
        isinstance(entry, tuple) and len(entry) == 3 for entry in providers.values()
    ):
        raise RuntimeError(
            f"this version of langchain has no table of providers where it used to be, so {function} cannot be taught; "
            f"use langchain_hf_gateway.{name}(model=...) instead"
        )
    return providers


def _make(cls: type[Any], **arguments: Any) -> Any:
    return cls(**arguments)
