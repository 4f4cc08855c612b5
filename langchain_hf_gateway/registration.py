"""Make `init_embeddings("hf_gateway:<model>")` work. LangChain has no public hook for that, so it is opt-in."""

from typing import Any


def register() -> None:
    """Enter `hf_gateway` among the providers that `langchain.embeddings.init_embeddings` knows; harmless when repeated.

    Raises:
        ImportError: langchain is not installed.
        RuntimeError: this version of langchain keeps its providers elsewhere; use the class itself then.
    """
    try:
        from langchain.embeddings import base
    except ImportError as error:
        raise ImportError("register() needs langchain: pip install langchain") from error
    providers = getattr(base, "_BUILTIN_PROVIDERS", None)
    if not isinstance(providers, dict):
        raise RuntimeError(
            "this version of langchain has no table of providers where it used to be, so init_embeddings cannot be taught; "
            "use langchain_hf_gateway.HFGatewayEmbeddings(model=...) instead"
        )
    providers["hf_gateway"] = ("langchain_hf_gateway", "HFGatewayEmbeddings", _make)


def _make(cls: type[Any], **arguments: Any) -> Any:
    return cls(**arguments)
