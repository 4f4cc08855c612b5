"""The HTTP server: the chains of hf-gateway.toml for clients of other languages, machines and teams.

`hf-gateway serve` runs it. Any other ASGI server can, too, configured by the file and the environment:

    uvicorn hf_gateway.server:app

A request takes one way: `dispatch.middleware` (id, bounds, rights by the route table) → a handler of a surface (`surfaces/`),
which turns the body into a task's request → the gateway of a chain (`dispatch.chains`) → the surface's answer, or its form of a
problem (`problems`). Of the folders each may import those before it: `problems`, `access`, `dispatch`, `surfaces`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from hf_gateway.server.application import create_app as create_app

    app: FastAPI

__all__ = ["app", "create_app"]


def __getattr__(name: str) -> Any:
    """Build the application when an ASGI server asks for it: no submodule may be called `app`, which would stand in its place."""
    if name == "create_app":
        from hf_gateway.server.application import create_app

        return create_app
    if name == "app":
        from hf_gateway.server.application import from_environment

        globals()["app"] = made = from_environment()
        return made
    raise AttributeError(f"module 'hf_gateway.server' has no attribute {name!r}")
