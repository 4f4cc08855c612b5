"""What can go wrong with the Hub only; everything else is of `hf_gateway.errors`."""

from hf_gateway.errors import ConnectFailed, GatewayError


class NotConnected(GatewayError, RuntimeError):
    """A call that acts in somebody's name, before `connect` said in whose."""


class HubOffline(ConnectFailed):
    """Nothing was sent, since the environment says that there is no network (HF_HUB_OFFLINE)."""

    retries = False


class NotEnoughSpace(GatewayError, OSError):
    """The disk has no room for what would be downloaded; nothing was."""


class UnsafeFiles(GatewayError):
    """The repository has the model only in files that can run code when they are loaded; nothing was downloaded."""


class DownloadStopped(GatewayError):
    """Somebody stopped a download before its end; what has come is kept for the next time."""
