"""Errors on their way from a worker to the job: whole, so that the caller gets the class that the target's error has."""

import base64
import pickle

from hf_gateway.errors import GatewayError


def pack(error: Exception) -> str:
    """Return an error as text."""
    try:
        return base64.b64encode(pickle.dumps(error)).decode()
    except Exception:  # noqa: BLE001 - something that an error of a library refers to cannot be pickled
        return pack(GatewayError(f"{type(error).__name__}: {error}"))


def unpack(text: str) -> Exception:
    """Return the error that a worker, a process of this program, has packed."""
    found = pickle.loads(base64.b64decode(text))  # noqa: S301 - from this program's own child
    return found if isinstance(found, Exception) else GatewayError(f"a worker failed with {found!r}")


def in_part(error: Exception, part: str) -> Exception:
    """Return an error of the same class whose message begins with the part.

    Args:
        error: of a worker.
        part: its name.
    """
    if isinstance(error, GatewayError):
        return error.restated(f"{part}: {error.message}", error.retry_after)
    return error if isinstance(error, OSError) else GatewayError(f"{part}: {type(error).__name__}: {error}")
