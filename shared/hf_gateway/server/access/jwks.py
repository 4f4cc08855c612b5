"""The public keys of an issuer of tokens: fetched once for all who wait, and used for at most an hour without the issuer."""

import asyncio
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hf_gateway.errors import BadResponse, ConfigError, GatewayError
from hf_gateway.runtime.effects import Send
from hf_gateway.server.access.bind import is_loopback
from hf_gateway.values.http import HttpRequest
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    from joserfc.jwk import Key

    from hf_gateway.http.transport import HttpTransport

log = logger(__name__)

FRESH_S = 600.0
"""Seconds after which the keys are fetched again, while the known ones are still used."""
MIN_REFETCH_S = 30.0
"""Seconds between two requests to an issuer, whatever tokens arrive."""
MAX_STALE_S = 3600.0
"""Seconds for which keys are used without the issuer."""
FETCH_TIMEOUT_S = 5.0
MAX_JWKS_BYTES = 256 * 1024
MAX_JWKS_KEYS = 100
MIN_RSA_BITS = 2048
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class PublicKey:
    """A key of an issuer."""

    algorithm: str
    """The one algorithm that it is used with."""
    key: "Key"
    """The key."""


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None,
        transport: "HttpTransport",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the addresses; nothing is fetched yet.

        Args:
            issuer: the value of `iss`.
            jwks_url: where the keys are; None to look it up in the issuer's OpenID configuration.
            transport: sends the requests.
            monotonic: returns seconds of a monotonic clock.

        Raises:
            ConfigError: an address is not https, and not of this machine.
        """
        self._issuer, self._jwks_url = issuer, jwks_url
        check_address(jwks_url or issuer, issuer)
        self._transport, self._monotonic = transport, monotonic
        self._keys: Mapping[str | None, list[PublicKey]] = {}
        self._fetched_at: float | None = None
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key that a token names, if it is for the token's algorithm; None if there is no such key.

        Args:
            kid: the token's `kid`, which only picks one of the issuer's own keys; None if it has none.
            algorithm: the token's `alg`.

        Raises:
            GatewayError: the keys are not known, and cannot be fetched.
        """
        age = self._age()
        if age > MAX_STALE_S:
            await self._fetch()
        elif age > FRESH_S or not self._candidates(kid):
            if age > FRESH_S and self._candidates(kid):
                self._begin()
            else:
                await self._fetch()
        return next((key for key in self._candidates(kid) if key.algorithm == algorithm), None)

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._monotonic() - self._fetched_at

    def _candidates(self, kid: str | None) -> list[PublicKey]:
        if kid is not None:
            return self._keys.get(kid, [])
        every = [key for keys in self._keys.values() for key in keys]
        # Which of several keys is meant has to be said.
        return every if len(every) == 1 else []

    async def _fetch(self) -> None:
        """Fetch the keys, or wait for the request that is under way; leave the known ones if they are recent enough."""
        task = self._begin()
        failure: GatewayError | None = None
        if task is not None:
            try:
                await asyncio.shield(task)
            except GatewayError as error:
                failure = error
        if self._age() > MAX_STALE_S:
            raise failure or BadResponse(
                "its keys could not be fetched, and are not asked for again yet", target=self._issuer
            )

    def _begin(self) -> "asyncio.Task[None] | None":
        """Begin a request unless one is under way; None if the last one was too recent."""
        if self._asking is None:
            now = self._monotonic()
            if now - self._asked_at < MIN_REFETCH_S:
                return None
            self._asked_at = now
            self._asking = asyncio.create_task(self._request())
            self._asking.add_done_callback(self._done)
        return self._asking

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._asking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the keys of the issuer %s could not be fetched: %s", self._issuer, error)

    async def _request(self) -> None:
        url = self._jwks_url
        if url is None:
            found = await self._get(self._issuer.rstrip("/") + _DISCOVERY)
            url = found.get("jwks_uri")
            if found.get("issuer") != self._issuer or not isinstance(url, str):
                raise BadResponse(
                    "its OpenID configuration is of another issuer, or has no jwks_uri", target=self._issuer
                )
            try:
                check_address(url, self._issuer)
            except ConfigError as error:
                raise BadResponse(error.message, target=self._issuer) from None
        self._keys = _parsed(await self._get(url), self._issuer)
        self._fetched_at = self._monotonic()

    async def _get(self, url: str) -> dict[str, Any]:
        send = Send(HttpRequest("GET", url, headers={"accept": "application/json"}), None, False, MAX_JWKS_BYTES)
        response = await self._transport.asend(
            send, timeout=FETCH_TIMEOUT_S, connect_timeout=FETCH_TIMEOUT_S, target=self._issuer
        )
        if response.status != 200:
            raise BadResponse(f"answers {response.status} where its keys should be", target=self._issuer)
        try:
            found = json.loads(response.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BadResponse("does not answer with a JSON object where its keys should be", target=self._issuer)
        return found


def _parsed(found: Mapping[str, Any], issuer: str) -> Mapping[str | None, list[PublicKey]]:
    """Return the usable keys by their `kid`."""
    listed = found.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_JWKS_KEYS:
        raise BadResponse(f"has no list of at most {MAX_JWKS_KEYS} keys", target=issuer)
    keys: dict[str | None, list[PublicKey]] = {}
    for each in listed:
        if isinstance(each, dict) and (key := _usable(each)) is not None:
            kid = each.get("kid")
            keys.setdefault(kid if isinstance(kid, str) else None, []).append(key)
    if not keys:
        raise BadResponse("has no key that tokens can be verified with", target=issuer)
    return keys


def _usable(jwk: Mapping[str, Any]) -> PublicKey | None:
    """Return a public key for signatures with the one algorithm that it is for; None for any other key."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    algorithm = _algorithm_of(jwk)
    operations = jwk.get("key_ops")
    if algorithm is None or jwk.get("use", "sig") != "sig" or (operations is not None and "verify" not in operations):
        return None
    public = {name: jwk[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in jwk}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short keys, which are left out
            key = import_key(public)
            raw: Any = key.get_op_key("verify")
    except (JoseError, ValueError, TypeError):
        return None
    if jwk["kty"] == "RSA" and raw.key_size < MIN_RSA_BITS:
        return None
    return PublicKey(algorithm, key)


def _algorithm_of(jwk: Mapping[str, Any]) -> str | None:
    """Return the algorithm that a key is for, by its own fields alone; None for symmetric and unknown ones."""
    kind, curve, named = jwk.get("kty"), jwk.get("crv"), jwk.get("alg")
    if kind == "RSA":
        found = "RS256" if named is None else named
        return found if found in _RSA else None
    if kind == "EC" and isinstance(curve, str):
        found = _CURVES.get(curve)
    elif kind == "OKP" and curve == "Ed25519":
        found = named if named in ("EdDSA", "Ed25519") else "EdDSA"
    else:
        return None
    return found if named in (None, found) else None


def check_address(url: str, issuer: str) -> None:
    """Raise ConfigError for an address of keys that is neither https nor of this machine.

    Args:
        url: the address.
        issuer: the value of `iss`, for the message.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return
    raise ConfigError(
        f"the keys of the issuer {issuer!r} have to be fetched over https; {parts.scheme!r} could be forged"
    )
