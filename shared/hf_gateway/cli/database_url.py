"""Which database a command uses: the same one as `hf-gateway serve`."""

from hf_gateway.ledger import place


def configured_url(given: str | None, what: str = "--ledger", config: str | None = None) -> str:
    """Return the URL of the database: the one given, `[server] database`, HF_GATEWAY_LEDGER's, or the user's file.

    Args:
        given: value of the option.
        what: name of the option, for errors.
        config: the config file; by default the one in force.

    Raises:
        ConfigError: an invalid URL or setting, or `[server] database` and HF_GATEWAY_LEDGER name two databases.
    """
    if given is not None:
        return place.check_url(given, what)
    from hf_gateway.server.access.database import server_url
    from hf_gateway.settings.server import ServerSettings

    return server_url(ServerSettings.load(config).database)
