"""Continues the trace of a caller, while spans are made at all."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

_PARENT = b"traceparent"
_STATE = b"tracestate"
_NOTHING = contextlib.nullcontext()


def continued_trace(headers: Mapping[bytes, bytes]) -> AbstractContextManager[None]:
    """Return a context in which spans are children of the span that a request names; of W3C's headers, not of baggage.

    Args:
        headers: the request's.
    """
    # Loaded by `telemetry.enable_otel` alone.
    if _PARENT not in headers or "hf_gateway.telemetry.otel" not in sys.modules:
        return _NOTHING
    return _as_child(headers)


@contextlib.contextmanager
def _as_child(headers: Mapping[bytes, bytes]) -> Iterator[None]:
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name.decode(): headers[name].decode("latin-1") for name in (_PARENT, _STATE) if name in headers}
    token = context.attach(TraceContextTextMapPropagator().extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
