"""Failures of the Hub; all other failures are in `hf_gateway.errors`.

Code that was written for other Hub connectors catches built-in exceptions. Those are bases of the classes here, which
only the connector raises: a chain never does, since the frameworks around it swallow some of the built-in exceptions.
"""

from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError, InvalidRequest, ModelNotFound


class HubArgumentError(InvalidRequest, ValueError):
    """Invalid argument: a name, a token, a limit or details of an adapter. Nothing was sent."""


class NotConnected(GatewayError, RuntimeError):
    """The call needs an account, but `connect` was not called."""


class NoSuchModel(ModelNotFound, FileNotFoundError):
    """The model or revision does not exist on the Hub, or the token has no access to it."""


class HubUnreachable(ConnectFailed, ConnectionError):
    """The connection to the Hub failed or broke off."""


class HubTimedOut(AttemptTimedOut, ConnectionError):
    """The Hub did not answer in time."""


class HubOffline(HubUnreachable):
    """Nothing was sent, since offline mode is set (HF_HUB_OFFLINE)."""

    retries = False


class NotEnoughSpace(GatewayError, OSError):
    """The disk is too small for the download; nothing was downloaded."""


class UnsafeFiles(GatewayError):
    """The model exists only in formats that are not downloaded unless they are named; nothing was downloaded."""


class DownloadStopped(GatewayError):
    """The download was stopped before its end; a later one resumes it."""


class PublishStopped(GatewayError):
    """Publishing was stopped before its end; nothing was published."""


_OF_THE_HUB: dict[type[GatewayError], type[GatewayError]] = {
    AttemptTimedOut: HubTimedOut,
    ConnectFailed: HubUnreachable,
    ModelNotFound: NoSuchModel,
}


def of_the_hub(error: GatewayError) -> GatewayError:
    """Return the error as the Hub's class for it, if there is one."""
    kind = _OF_THE_HUB.get(type(error))
    if kind is None:
        return error
    return kind(error.message, target=error.target, status=error.status, retry_after=error.retry_after)
