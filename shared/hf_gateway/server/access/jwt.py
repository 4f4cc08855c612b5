"""Tokens (JWT) of configured issuers as credentials.

A token is verified with a public key of its issuer and the one algorithm that this key is for; what the token's own header says
of keys (`jwk`, `jku`, `x5u`, `x5c`) is never used. Without `exp`, `iss`, `aud` and `sub` it is refused. joserfc is imported when
an issuer is configured.
"""

import base64
import json
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.server.access.caller import SCOPES, Caller
from hf_gateway.server.access.jwks import IssuerKeys
from hf_gateway.server.access.keys import digest
from hf_gateway.server.access.rights import MAX_NAME_CHARS, check_tenant
from hf_gateway.server.problems import Problem
from hf_gateway.settings.server import JwtIssuer
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    from hf_gateway.http.transport import HttpTransport

log = logger(__name__)

MAX_REMEMBERED_ENTRIES = 10_000
MAX_REMEMBERED_S = 300.0
"""Seconds for which a verified token is not verified again; at most until its `exp`."""
MAX_HEADER_BYTES = 8192
MAX_TIME_S = 253_402_300_799
"""The end of the year 9999, in seconds since 1970: a later `exp` means the same."""
_LIMITS = ("requests_per_minute", "tokens_per_minute", "parallel")
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
"""Values of `typ` of tokens that are for access."""


class TokenVerifier:
    """Verifies tokens of the configured issuers."""

    def __init__(
        self,
        issuers: Mapping[str, JwtIssuer],
        *,
        transport: "HttpTransport | None" = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Import joserfc; nothing is fetched yet.

        Args:
            issuers: settings by the value of `iss`.
            transport: sends the requests for keys; by default one of its own.
            now: returns seconds since 1970.
            monotonic: returns seconds of a monotonic clock.

        Raises:
            ConfigError: the package is missing, or an address is not https.
        """
        if find_spec("joserfc") is None:
            raise ConfigError("[server.jwt] needs joserfc: pip install 'hf-gateway[jwt]'")
        from joserfc import jwt as _  # noqa: F401 - now, and not at the first request

        from hf_gateway.http.transport import HttpTransport

        self._transport = transport or HttpTransport()
        self._issuers = dict(issuers)
        self._keys = {name: IssuerKeys(name, issuers[name].jwks_url, self._transport, monotonic) for name in issuers}
        self._now, self._monotonic = now, monotonic
        self._remembered: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    def granted_now(self, caller: Caller) -> Caller | None:
        """Return what the caller of an earlier token has by the settings of now; None if its issuer is not accepted any more.

        Args:
            caller: of a token that was valid, and is not over.
        """
        of_issuer = (issuer for name, issuer in self._issuers.items() if str(caller.key).startswith(f"{name}#"))
        settings = next(of_issuer, None)
        if settings is None or settings.tenant not in (None, caller.tenant):
            return None
        limits = {limit: getattr(settings, limit) for limit in _LIMITS}
        return replace(caller, scopes=caller.scopes & frozenset(settings.scopes), **limits)

    async def caller_of(self, token: str) -> Caller:
        """Return the caller of a token.

        Args:
            token: the whole token.

        Raises:
            Problem: 401 for an invalid token, 503 if the keys of its issuer cannot be fetched.
        """
        # By the whole token: of two tokens with the same beginning one may be forged.
        sha256 = digest(token)
        known = self._remembered.get(sha256)
        if known is not None:
            until, caller = known
            if self._monotonic() < until and not self._is_over(caller):
                return caller
            del self._remembered[sha256]
        header, claims = _unverified(token)
        issuer = claims.get("iss")
        settings = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if settings is None or not isinstance(issuer, str):
            raise _invalid("its issuer (iss) is not one of [server.jwt]")
        caller = self._granted(await self._verified(token, header, issuer, settings), issuer, settings)
        self._remembered[sha256] = (self._monotonic() + MAX_REMEMBERED_S, caller)
        while len(self._remembered) > MAX_REMEMBERED_ENTRIES:
            self._remembered.popitem(last=False)
        return caller

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _is_over(self, caller: Caller) -> bool:
        return caller.expires is not None and self._now() >= caller.expires

    async def _verified(
        self, token: str, header: Mapping[str, Any], issuer: str, settings: JwtIssuer
    ) -> Mapping[str, Any]:
        """Return the claims of a token whose signature and times are right. Raises Problem."""
        from joserfc import jws, jwt
        from joserfc.errors import JoseError

        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
        if "crit" in header:
            raise _invalid("its header has extensions (crit), and none is supported")
        if not isinstance(algorithm, str) or not isinstance(kid, str | None):
            raise _invalid("its header has no alg, or a kid that is not text")
        if not isinstance(kind, str | None) or (kind and kind.lower()) not in _TYPES:
            raise _invalid("it is not an access token (typ)")
        try:
            key = await self._keys[issuer].find(kid, algorithm)
        except GatewayError:
            raise Problem(
                503,
                "issuer_unavailable",
                "the keys of the token's issuer cannot be fetched; try again",
                retry_after=30.0,
            ) from None
        if key is None:
            raise _invalid("its issuer has no such key (kid) for its algorithm (alg)")
        registry = jws.JWSRegistry(algorithms=[key.algorithm], strict_check_header=False)
        registry.max_header_length = MAX_HEADER_BYTES
        checks = jwt.JWTClaimsRegistry(
            now=lambda: int(self._now()),
            leeway=int(settings.leeway),
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "values": list(settings.audience)},
            sub={"essential": True},
            exp={"essential": True},
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of EdDSA's name
                found = jwt.decode(token, key.key, algorithms=[key.algorithm], registry=registry)
            checks.validate(found.claims)
        except (JoseError, ValueError, TypeError, OverflowError) as error:
            # The names of errors and claims; never values, which the caller wrote.
            log.info("a token of %s was refused: %s", issuer, type(error).__name__)
            raise _invalid("its signature, times or audience are not right") from None
        return found.claims

    def _granted(self, claims: Mapping[str, Any], issuer: str, settings: JwtIssuer) -> Caller:
        tenant = settings.tenant or claims.get(settings.tenant_claim)
        try:
            if not isinstance(tenant, str):
                raise ConfigError("not text")
            check_tenant(tenant)
        except ConfigError:
            raise _invalid(f"its claim {settings.tenant_claim!r} does not name a tenant") from None
        allowed = frozenset(settings.scopes)
        given = _words(claims.get(settings.scopes_claim))
        chains = _words(claims.get(settings.chains_claim))
        subject = claims["sub"]
        if not subject.isprintable() or len(subject) > MAX_NAME_CHARS:
            raise _invalid("its subject (sub) is too long, or cannot be printed")
        return Caller(
            key=f"{issuer}#{subject}",
            tenant=tenant,
            scopes=(allowed if given is None else allowed & given) & frozenset(SCOPES),
            chains=chains,
            expires=float(min(claims["exp"], MAX_TIME_S)) + settings.leeway,
            **{limit: getattr(settings, limit) for limit in _LIMITS},
        )


def _words(claim: Any) -> frozenset[str] | None:
    """Return the words of a claim, a list or a text with blanks between them; None if it is absent, no words if it is neither."""
    if claim is None:
        return None
    if isinstance(claim, str):
        return frozenset(claim.split())
    if isinstance(claim, list):
        return frozenset(each for each in claim if isinstance(each, str))
    return frozenset()


def _unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return header and claims of a token, to find its issuer; nothing of it is true yet. Raises Problem."""
    parts = token.split(".")
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (ValueError, RecursionError):
        header = claims = None
    if len(parts) != 3 or not isinstance(header, dict) or not isinstance(claims, dict):
        raise _invalid("it cannot be read")
    return header, claims


def _invalid(reason: str) -> Problem:
    return Problem(
        401,
        "invalid_token",
        f"the token is not accepted: {reason}",
        headers=((b"www-authenticate", b'Bearer error="invalid_token"'),),
    )
