"""What is wrong with the settings of access, beyond their types: names of origins, networks, scopes and addresses of keys."""

from collections.abc import Callable, Iterator
from functools import partial

from hf_gateway.configuration.chains import located
from hf_gateway.errors import ConfigError
from hf_gateway.server.access.caller import checked_scopes
from hf_gateway.server.access.jwks import check_address
from hf_gateway.server.access.origins import OriginRules
from hf_gateway.settings.config_file import open_config
from hf_gateway.settings.problems import Problem
from hf_gateway.settings.server import SECTION, ServerSettings


def access_problems(settings: ServerSettings) -> Iterator[Problem]:
    """Yield what is wrong, with the place in a file that has these settings."""
    for number, origin in enumerate(settings.cors_origins):
        yield from _refusal(("cors_origins", number), partial(OriginRules, cors_origins=[origin]))
    for number, network in enumerate(settings.trusted_proxies):
        yield from _refusal(("trusted_proxies", number), partial(OriginRules, trusted_proxies=[network]))
    for name, issuer in settings.jwt.items():
        place = ("jwt", name) if issuer.jwks_url is None else ("jwt", name, "jwks_url")
        yield from _refusal(place, partial(check_address, issuer.jwks_url or name, name))
        for number, scope in enumerate(issuer.scopes):
            yield from _refusal(("jwt", name, "scopes", number), partial(checked_scopes, [scope]))


def refuse_wrong_access(settings: ServerSettings, config: str | None = None) -> None:
    """Check the settings of access.

    Args:
        settings: of the server.
        config: the config file; by default the one in force.

    Raises:
        ConfigError: one is wrong; with file and line, if it is in the file.
    """
    for problem in access_problems(settings):
        raise located(problem, open_config(config))


def _refusal(place: tuple[str | int, ...], check: Callable[[], object]) -> Iterator[Problem]:
    try:
        check()
    except ConfigError as error:
        yield Problem((SECTION, *place), error.message)
