"""Tokens of issuers: what they grant, how their keys are fetched, and every known way to forge one."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from hf_gateway.errors import ConfigError
from hf_gateway.server.access.caller import Caller
from hf_gateway.server.access.jwt import TokenVerifier
from hf_gateway.server.problems import Problem
from hf_gateway.settings.server import JwtIssuer
from tests.servers.issuer import AUDIENCE, DISCOVERY, JWKS, FakeIssuer, encoded, hmac_token, rsa_key
from tests.servers.loopback import Reply, hang, redirect
from tests.support.late import COLLECTED

if COLLECTED:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from joserfc.jwk import OctKey

HOUR = 3600.0


class Clock:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return time.time() + self.passed

    def monotonic(self) -> float:
        return 1000.0 + self.passed


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


def verifier(issuer: FakeIssuer, clock: Clock | None = None, **settings: Any) -> TokenVerifier:
    clock = clock or Clock()
    settings = {"jwks_url": issuer.url + JWKS, **settings}
    issuers = {issuer.url: JwtIssuer(audience=(AUDIENCE,), **settings)}
    return TokenVerifier(issuers, now=clock.now, monotonic=clock.monotonic)


async def refused(made: TokenVerifier, token: str) -> str:
    with pytest.raises(Problem) as problem:
        await made.caller_of(token)
    assert problem.value.status == 401
    assert token.rpartition(".")[0] not in problem.value.message
    return problem.value.message


class TestGranted:
    @pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
    async def test_a_token_of_each_kind_of_key(self, kid: str, issuer: FakeIssuer) -> None:
        claims: dict[str, Any] = {"scope": "openid embed chat admin", "chains": ["docs"]}
        token = issuer.token(kid, **claims)
        exp = issuer.claims()["exp"]
        caller = await verifier(issuer, requests_per_minute=7).caller_of(token)
        assert caller.key == f"{issuer.url}#ann"
        assert (caller.tenant, caller.requests_per_minute) == ("acme", 7)
        # What the issuer may grant is the operator's to say; a claim only narrows it.
        assert caller.scopes == {"embed", "chat"}
        assert caller.chains == frozenset({"docs"})
        assert caller.expires is not None
        assert abs(caller.expires - (exp + 30)) < 5

    async def test_without_claims_of_its_own_it_has_the_issuers_scopes_and_all_chains(self, issuer: FakeIssuer) -> None:
        caller = await verifier(issuer, scopes=("embed", "admin")).caller_of(issuer.token())
        assert (caller.scopes, caller.chains) == (frozenset({"embed", "admin"}), None)

    async def test_claims_may_have_other_names_and_the_tenant_may_be_fixed(self, issuer: FakeIssuer) -> None:
        named: dict[str, Any] = {"tenant_claim": "org", "scopes_claim": "roles", "chains_claim": "models"}
        token = issuer.token(org="globex", roles=["embed", 7], models="docs images")
        caller = await verifier(issuer, **named).caller_of(token)
        assert (caller.tenant, caller.scopes) == ("globex", frozenset({"embed"}))
        assert caller.chains == frozenset({"docs", "images"})
        assert (await verifier(issuer, tenant="fixed").caller_of(token)).tenant == "fixed"

    @pytest.mark.parametrize("given", [{"scope": {}}, {"scope": 5}, {"scope": ""}, {"scope": []}])
    async def test_a_claim_that_is_not_scopes_grants_none(self, given: Any, issuer: FakeIssuer) -> None:
        assert (await verifier(issuer).caller_of(issuer.token(**given))).scopes == frozenset()

    @pytest.mark.parametrize("tenant", [None, "", "*", "key:abcdefghijkm", 7, ["acme"], "a\nb"])
    async def test_a_token_that_names_no_tenant_is_refused(self, tenant: Any, issuer: FakeIssuer) -> None:
        """A caller without a tenant would read what all tenants used."""
        assert "does not name a tenant" in await refused(verifier(issuer), issuer.token(tenant=tenant))

    async def test_one_of_several_audiences_is_enough(self, issuer: FakeIssuer) -> None:
        assert await verifier(issuer).caller_of(issuer.token(aud=["other", AUDIENCE]))

    async def test_clocks_may_differ_by_the_leeway(self, issuer: FakeIssuer, clock: Clock) -> None:
        now = int(time.time())
        assert await verifier(issuer).caller_of(issuer.token(exp=now - 10, nbf=now + 10, iat=now + 10))
        await refused(verifier(issuer), issuer.token(exp=now - 31))
        await refused(verifier(issuer), issuer.token(nbf=now + 60))

    async def test_an_exp_beyond_all_time_is_no_fault_of_the_server(self, issuer: FakeIssuer) -> None:
        caller = await verifier(issuer).caller_of(issuer.token(exp=10**400))
        assert caller.expires is not None

    async def test_the_only_key_needs_no_kid(self, issuer: FakeIssuer) -> None:
        await refused(verifier(issuer), issuer.token(header={"kid": None}))
        issuer.keys = [issuer.public("rsa")]
        assert await verifier(issuer).caller_of(issuer.token(header={"kid": None}))


def own(issuer: FakeIssuer, **header: Any) -> str:
    """Return a token that an attacker signed with a key of their own."""
    issuer.signing["own"] = ("RS256", rsa_key("the attacker's"))
    token = issuer.token("own", header)
    del issuer.signing["own"]
    return token


def own_jwk() -> dict[str, Any]:
    return dict(rsa_key("the attacker's").as_dict(private=False))


def with_header(issuer: FakeIssuer, header: Any, signature: str | None = None) -> str:
    """Return a valid token with another header, and perhaps another signature."""
    _, claims, given = issuer.token().split(".")
    return f"{encoded(header)}.{claims}.{given if signature is None else signature}"


def with_zeros(issuer: FakeIssuer, kid: str, size: int) -> str:
    """Return a token whose signature has zeros alone.

    CVE-2022-21449: with a key of a curve, a check that does not refuse zero finds such a signature equal to anything.
    """
    return f"{issuer.token(kid).rpartition('.')[0]}.{encoded(bytes(size))}"


def hmac_with(issuer: FakeIssuer, form: str, **header: Any) -> str:
    """Return a token signed by HMAC with the issuer's public key as its secret."""
    public: Any = issuer.signing["rsa"][1]
    secret = {
        "PEM": public.as_pem(private=False),
        "JWK": json.dumps(public.as_dict(private=False)).encode(),
        "modulus": str(public.as_dict()["n"]).encode(),
    }[form]
    return hmac_token(secret, {"alg": "HS256", "typ": "JWT", "kid": "rsa", **header}, issuer.claims())


ATTACKS: Mapping[str, Callable[[FakeIssuer], str]] = {
    "alg none": lambda issuer: with_header(issuer, {"alg": "none", "kid": "rsa"}, ""),
    "alg none, signed": lambda issuer: with_header(issuer, {"alg": "none", "kid": "rsa"}),
    "alg NoNe": lambda issuer: with_header(issuer, {"alg": "NoNe", "kid": "rsa"}, ""),
    "no alg": lambda issuer: with_header(issuer, {"kid": "rsa"}),
    "alg is a list": lambda issuer: with_header(issuer, {"alg": ["RS256"], "kid": "rsa"}),
    "no signature": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "signature of zeros": lambda issuer: with_zeros(issuer, "rsa", 256),
    "signature of zeros of ES256": lambda issuer: with_zeros(issuer, "ec", 64),
    "signature of zeros of EdDSA": lambda issuer: with_zeros(issuer, "ed", 64),
    "empty signature of ES256": lambda issuer: with_zeros(issuer, "ec", 0),
    "signature of another token": lambda issuer: (
        issuer.token(sub="bob").rpartition(".")[0] + "." + issuer.token().rpartition(".")[2]
    ),
    "HS256 with the public key as PEM": lambda issuer: hmac_with(issuer, "PEM"),
    "HS256 with the public key as JWK": lambda issuer: hmac_with(issuer, "JWK"),
    "HS256 with the modulus": lambda issuer: hmac_with(issuer, "modulus"),
    "HS256 that says RS256": lambda issuer: hmac_with(issuer, "PEM", alg="RS256"),
    "own key in jwk": lambda issuer: own(issuer, kid="rsa", jwk=own_jwk()),
    "own key in jwk without kid": lambda issuer: own(issuer, kid=None, jwk=own_jwk()),
    "own key at jku": lambda issuer: own(issuer, jku=f"{issuer.url}/own"),
    "own key at x5u": lambda issuer: own(issuer, kid="rsa", x5u=f"{issuer.url}/own"),
    "kid is a path": lambda issuer: own(issuer, kid="../../dev/null"),
    "kid is a URL": lambda issuer: own(issuer, kid=f"{issuer.url}/own"),
    "kid is SQL": lambda issuer: own(issuer, kid="x' UNION SELECT 'key' --"),
    "kid is a number": lambda issuer: own(issuer, kid=1),
    "kid is a list": lambda issuer: own(issuer, kid=["rsa"]),
    "kid of another kind of key": lambda issuer: issuer.token("rsa", {"kid": "ec"}),
    "another algorithm of the key": lambda issuer: issuer.token("rsa", {"alg": "PS256"}),
    "critical extensions": lambda issuer: issuer.token(header={"crit": ["exp"]}),
    "payload that is not encoded": lambda issuer: issuer.token(header={"b64": False, "crit": ["b64"]}),
    "logout token": lambda issuer: issuer.token(header={"typ": "logout+jwt"}),
    "no exp": lambda issuer: issuer.token(exp=None),
    "exp is text": lambda issuer: issuer.token(exp="9999999999"),
    "exp is true": lambda issuer: issuer.token(exp=True),
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 120),
    "no iss": lambda issuer: issuer.token(iss=None),
    "another iss": lambda issuer: issuer.token(iss="https://evil.example"),
    "iss with a slash more": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "iss is a list": lambda issuer: issuer.token(iss=[issuer.url]),
    "no aud": lambda issuer: issuer.token(aud=None),
    "wrong aud": lambda issuer: issuer.token(aud="another-service"),
    "aud is a part": lambda issuer: issuer.token(aud=AUDIENCE[:-1]),
    "aud is an object": lambda issuer: issuer.token(aud={AUDIENCE: True}),
    "no sub": lambda issuer: issuer.token(sub=None),
    "sub is a number": lambda issuer: issuer.token(sub=7),
    "sub with a line break": lambda issuer: issuer.token(sub="ann\nadmin"),
    "not yet valid": lambda issuer: issuer.token(nbf=int(time.time()) + 600),
    "two parts": lambda issuer: issuer.token().rpartition(".")[0],
    "five parts": lambda issuer: issuer.token() + ".x.y",
    "header is not JSON": lambda issuer: with_header(issuer, b"{"),
    "header is a list": lambda issuer: with_header(issuer, []),
    "header is deep": lambda issuer: with_header(issuer, b"[" * 8000),
    "header is not text": lambda issuer: with_header(issuer, bytes([255, 254])),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_forged_token_is_refused(attack: str, issuer: FakeIssuer) -> None:
    made = verifier(issuer)
    assert await made.caller_of(issuer.token())
    await refused(made, ATTACKS[attack](issuer))
    # No key was fetched from where the token said.
    assert {request.path for request in issuer.requests} == {JWKS}


async def test_what_is_remembered_of_a_token_is_not_given_for_another_with_the_same_beginning(
    issuer: FakeIssuer,
) -> None:
    """CVE-2026-35030: a cache whose key was a part of the token."""
    made = verifier(issuer)
    good = issuer.token()
    first = await made.caller_of(good)
    assert await made.caller_of(good) is first
    for length in (8, 32, 64, len(good) - 4):
        forged = good[:length] + ("A" if good[length] != "A" else "B") + good[length + 1 :]
        await refused(made, forged)
    await refused(made, good + "A")


async def test_what_is_remembered_ends_with_the_token(issuer: FakeIssuer, clock: Clock) -> None:
    made = verifier(issuer, clock)
    token = issuer.token(exp=int(time.time()) + 60)
    assert await made.caller_of(token)
    clock.passed = 100.0
    await refused(made, token)


class TestKeys:
    async def test_are_fetched_once_for_all_who_wait(self, issuer: FakeIssuer) -> None:
        held = hang()
        issuer.always(held, JWKS)
        made = verifier(issuer)
        waiting = [asyncio.create_task(made.caller_of(issuer.token(sub=f"user {number}"))) for number in range(20)]
        await asyncio.to_thread(issuer.wait_for, 1)
        held.release()
        callers = await asyncio.gather(*waiting)
        assert len({caller.key for caller in callers}) == 20
        assert issuer.count(JWKS) == 1

    async def test_a_caller_who_leaves_does_not_end_the_request_of_the_others(self, issuer: FakeIssuer) -> None:
        held = hang()
        issuer.always(held, JWKS)
        made = verifier(issuer)
        first, second = (asyncio.create_task(made.caller_of(issuer.token(sub=name))) for name in ("ann", "bob"))
        await asyncio.to_thread(issuer.wait_for, 1)
        first.cancel()
        held.release()
        assert isinstance(await second, Caller)
        assert issuer.count(JWKS) == 1

    async def test_an_unknown_kid_fetches_them_again_and_a_flood_of_such_tokens_does_not(
        self, issuer: FakeIssuer, clock: Clock
    ) -> None:
        made = verifier(issuer, clock)
        assert await made.caller_of(issuer.token())
        for number in range(20):
            await refused(made, issuer.token(header={"kid": f"new {number}"}))
        assert issuer.count(JWKS) == 1
        issuer.signing["new"] = ("RS256", rsa_key("a new one"))
        issuer.keys.append(issuer.public("new"))
        token = issuer.token("new")
        await refused(made, token)
        clock.passed += 31
        assert await made.caller_of(token)
        assert issuer.count(JWKS) == 2

    async def test_a_withdrawn_key_is_refused_from_the_next_fetch_on(self, issuer: FakeIssuer, clock: Clock) -> None:
        made = verifier(issuer, clock)
        assert await made.caller_of(issuer.token())
        issuer.keys = [issuer.public("ec")]
        clock.passed += 601
        # The known keys serve while the new ones are fetched.
        assert await made.caller_of(issuer.token("ec", exp=int(clock.now()) + 600, iat=None))
        await asyncio.to_thread(issuer.wait_for, 2, JWKS)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                await made.caller_of(issuer.token(exp=int(clock.now()) + 600, iat=None))
            except Problem as problem:
                if problem.status == 401:
                    break
            await asyncio.sleep(0)
        else:
            raise AssertionError("the withdrawn key is still used")

    async def test_are_used_for_an_hour_without_the_issuer_and_not_longer(
        self, issuer: FakeIssuer, clock: Clock
    ) -> None:
        made = verifier(issuer, clock)
        assert await made.caller_of(issuer.token())
        issuer.always(Reply(500), JWKS)
        for passed in (700.0, 1400.0, HOUR - 1):
            clock.passed = passed
            assert await made.caller_of(issuer.token(exp=int(clock.now()) + 60, iat=None, sub=f"at {passed}"))
        clock.passed = HOUR + 40
        with pytest.raises(Problem) as problem:
            await made.caller_of(issuer.token(exp=int(clock.now()) + 60, iat=None))
        assert (problem.value.status, problem.value.code) == (503, "issuer_unavailable")

    async def test_that_cannot_be_fetched_are_not_asked_for_at_each_request(
        self, issuer: FakeIssuer, clock: Clock
    ) -> None:
        issuer.always(Reply(500), JWKS)
        made = verifier(issuer, clock)
        for _ in range(10):
            with pytest.raises(Problem) as problem:
                await made.caller_of(issuer.token())
            assert problem.value.status == 503
        assert issuer.count(JWKS) == 1
        issuer.recover()
        clock.passed += 31
        assert await made.caller_of(issuer.token())

    @pytest.mark.parametrize(
        "answer",
        [
            Reply(200, "not json"),
            Reply(200, []),
            Reply(200, {"keys": {}}),
            Reply(200, {"keys": []}),
            Reply(200, {"keys": [{}] * 101}),
            Reply(200, b"[" * 300_000),
            Reply(404, {"keys": []}),
            redirect("http://127.0.0.1:1/keys"),
        ],
    )
    async def test_an_answer_that_is_no_list_of_keys_is_not_used(self, answer: Reply, issuer: FakeIssuer) -> None:
        issuer.always(answer, JWKS)
        with pytest.raises(Problem) as problem:
            await verifier(issuer).caller_of(issuer.token())
        assert problem.value.status == 503

    async def test_that_tokens_cannot_be_verified_with_are_left_out(self, issuer: FakeIssuer) -> None:
        secret = OctKey.generate_key(256)
        short = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
        numbers = {
            name: encoded(value.to_bytes((value.bit_length() + 7) // 8))
            for name, value in (("n", short.n), ("e", short.e))
        }
        issuer.keys += [
            {**secret.as_dict(), "kid": "secret", "alg": "HS256"},
            {**issuer.public("rsa"), "kid": "for encryption", "use": "enc"},
            {**issuer.public("rsa"), "kid": "for signing", "key_ops": ["sign"]},
            {**issuer.public("rsa"), "kid": "hmac", "alg": "HS256"},
            {**issuer.public("ec"), "kid": "wrong alg", "alg": "ES384"},
            {"kty": "RSA", **numbers, "kid": "short"},
            {"kty": "RSA", "n": "AQAB", "kid": "broken"},
            {"kty": ["RSA"], "kid": "nonsense"},
        ]
        made = verifier(issuer)
        assert await made.caller_of(issuer.token())
        for kid in ("for encryption", "for signing", "hmac", "short", "broken", "nonsense"):
            await refused(made, issuer.token(header={"kid": kid}))
        await refused(made, issuer.token("ec", {"kid": "wrong alg"}))
        raw = base64.urlsafe_b64decode(f"{secret.as_dict()['k']}==")
        await refused(made, hmac_token(raw, {"alg": "HS256", "kid": "secret"}, issuer.claims()))

    async def test_a_key_with_an_algorithm_of_its_own_is_for_that_alone(self, issuer: FakeIssuer) -> None:
        issuer.keys = [{**issuer.public("rsa"), "alg": "PS256"}]
        made = verifier(issuer)
        await refused(made, issuer.token())
        issuer.signing["rsa"] = ("PS256", issuer.signing["rsa"][1])
        assert await made.caller_of(issuer.token())

    async def test_are_found_by_the_issuers_openid_configuration(self, issuer: FakeIssuer) -> None:
        assert await verifier(issuer, jwks_url=None).caller_of(issuer.token())
        assert [request.path for request in issuer.requests] == [DISCOVERY, JWKS]

    @pytest.mark.parametrize(
        "change",
        [
            {"issuer": "https://evil.example"},
            {"jwks_uri": None},
            {"jwks_uri": "http://198.51.100.1/keys"},
            {"jwks_uri": "file:///etc/passwd"},
        ],
    )
    async def test_a_configuration_of_another_issuer_is_not_believed(
        self, change: dict[str, Any], issuer: FakeIssuer
    ) -> None:
        issuer.configuration.update(change)
        with pytest.raises(Problem) as problem:
            await verifier(issuer, jwks_url=None).caller_of(issuer.token())
        assert problem.value.status == 503

    @pytest.mark.parametrize("url", ["http://login.example.org/keys", "file:///etc/passwd", "login.example.org"])
    def test_an_address_that_anyone_could_answer_for_is_refused_at_start(self, url: str) -> None:
        with pytest.raises(ConfigError, match="over https"):
            TokenVerifier({"https://login.example.org": JwtIssuer(audience=("x",), jwks_url=url)})


def test_joserfc_is_imported_only_when_an_issuer_is_configured() -> None:
    program = (
        "import sys, hf_gateway.server.access.authenticator, hf_gateway.server.access.jwt, hf_gateway.settings.server;"
        "print(sorted({'joserfc', 'cryptography'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"
