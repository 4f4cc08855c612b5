"""What can go wrong with the Hub only; everything else is of `hf_gateway.errors`.

Code that was written for other connectors to the Hub catches built-in classes. Those are bases here, of classes that a connector
alone raises: a chain never does, since frameworks around it swallow some of them.
"""

from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError, InvalidRequest, ModelNotFound


class HubArgumentError(InvalidRequest, ValueError):
    """An argument that the Hub cannot take: a name, a token, a limit, a description of an adapter. Nothing was sent."""


class NotConnected(GatewayError, RuntimeError):
    """A call that needs an account, before `connect` named one."""


class NoSuchModel(ModelNotFound, FileNotFoundError):
    """The Hub does not have this model or this revision, or the token may not read it."""


class HubUnreachable(ConnectFailed, ConnectionError):
    """There is no connection to the Hub, or it broke."""


class HubTimedOut(AttemptTimedOut, ConnectionError):
    """The Hub did not answer in time."""


class HubOffline(HubUnreachable):
    """Nothing was sent, since the environment says that there is no network (HF_HUB_OFFLINE)."""

    retries = False


class NotEnoughSpace(GatewayError, OSError):
    """The disk has no room for what would be downloaded; nothing was."""


class UnsafeFiles(GatewayError):
    """The repository has the model only in files that can run code when they are loaded; nothing was downloaded."""


class DownloadStopped(GatewayError):
    """A download was stopped before its end; what has come is kept for the next time."""


class PublishStopped(GatewayError):
    """Publishing was stopped before its end; nothing is half published."""


_OF_THE_HUB: dict[type[GatewayError], type[GatewayError]] = {
    AttemptTimedOut: HubTimedOut,
    ConnectFailed: HubUnreachable,
    ModelNotFound: NoSuchModel,
}


def of_the_hub(error: GatewayError) -> GatewayError:
    """Return the error as the class that the Hub's own has, where there is one."""
    kind = _OF_THE_HUB.get(type(error))
    if kind is None:
        return error
    return kind(error.message, target=error.target, status=error.status, retry_after=error.retry_after)
