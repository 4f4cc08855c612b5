"""An issuer of tokens (JWT): its OpenID configuration, its public keys, and tokens signed with any key."""

import base64
import functools
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from tests.servers.loopback import Loopback, Recorded, Reply, Stream
from tests.support.late import COLLECTED

if COLLECTED:
    from joserfc import jws
    from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

JWKS = "/keys"
DISCOVERY = "/.well-known/openid-configuration"
AUDIENCE = "hf-gateway"


def encoded(part: Any) -> str:
    """Return a part of a token."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def rsa_key(name: str) -> "RSAKey":
    """Return the RSA key of a name; made once a process, since it takes tenths of a second."""
    return RSAKey.generate_key(2048)


class FakeIssuer(Loopback):
    """Signs tokens, and publishes the keys to verify them with. keys: the published ones by `kid`."""

    def __init__(self) -> None:
        """Make a key of each kind."""
        super().__init__()
        self.signing: dict[str, tuple[str, Key]] = {
            "rsa": ("RS256", rsa_key("the issuer's")),
            "ec": ("ES256", ECKey.generate_key("P-256")),
            "ed": ("EdDSA", OKPKey.generate_key("Ed25519")),
        }
        self.keys: list[dict[str, Any]] = [self.public(kid) for kid in self.signing]
        self.configuration = {"issuer": self.url, "jwks_uri": self.url + JWKS}

    def handle(self, request: Recorded) -> Reply | Stream:
        """Answer the two documents."""
        if request.path == JWKS:
            return Reply(200, {"keys": self.keys})
        if request.path == DISCOVERY:
            return Reply(200, self.configuration)
        return super().handle(request)

    def public(self, kid: str) -> dict[str, Any]:
        """Return the public part of a key, as published."""
        return {**self.signing[kid][1].as_dict(private=False), "kid": kid, "use": "sig"}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid token, changed; a claim that is None is left out."""
        now = int(time.time())
        found = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "exp": now + 600,
            "iat": now,
            "tenant": "acme",
            **changes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def token(self, kid: str = "rsa", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a token signed with a key, whose header and claims may be changed; a None is left out."""
        algorithm, key = self.signing[kid]
        fields = {"alg": algorithm, "typ": "JWT", "kid": kid, **(header or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        signing_input = f"{encoded(fields)}.{encoded(self.claims(**changes))}"
        signature = jws.JWSRegistry.algorithms[algorithm].sign(signing_input.encode(), key)
        return f"{signing_input}.{encoded(signature)}"


def hmac_token(secret: bytes, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Return a token signed with HMAC, whatever its header says."""
    signing_input = f"{encoded(dict(header))}.{encoded(dict(claims))}"
    return f"{signing_input}.{encoded(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"
