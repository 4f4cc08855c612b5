"""From where a request may come: Host (DNS rebinding), pages of other origins, headers of proxies."""

from typing import Any

import pytest

from hf_gateway.errors import ConfigError
from hf_gateway.server.access.origins import MAX_CHECKED_BYTES, MAX_CHECKED_ENTRIES, OriginRules, Source
from hf_gateway.server.problems import Problem

LISTED = "https://app.example.org"


def check(rules: OriginRules | None = None, method: str = "POST", any_host: bool = False, **headers: Any) -> Source:
    """Check a request; of a header with several values each is one header."""
    fields = {"host": "localhost:8080", **{name.replace("_", "-"): value for name, value in headers.items()}}
    client = fields.pop("peer", "127.0.0.1")
    raw = [
        (name.encode(), value.encode("latin-1"))
        for name, values in fields.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope = {"headers": raw, "method": method, "client": (client, 5), "scheme": "http"}
    return (rules or OriginRules()).check(scope, any_host=any_host)


def refusal(*arguments: Any, **headers: Any) -> tuple[int, str]:
    with pytest.raises(Problem) as refused:
        check(*arguments, **headers)
    return refused.value.status, refused.value.code


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "api.localhost:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "192.168.1.7:80",
        ],
    )
    def test_addresses_and_names_of_loopback_are_accepted(self, host: str) -> None:
        assert check(host=host).own_page

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8080", "gateway"])
    def test_another_name_may_be_a_rebound_one(self, host: str) -> None:
        """CVE-2024-28224 and its kin: a page's own name is pointed at loopback, so that it is of the same origin."""
        assert refusal(host=host) == (403, "host_not_allowed")
        assert refusal(host=host, origin=f"http://{host}", sec_fetch_site="same-origin")[1] == "host_not_allowed"
        assert check(OriginRules(allowed_hosts=[host.partition(":")[0].upper()]), host=host).own_page

    def test_with_keys_any_name_is_accepted_unless_names_are_listed(self) -> None:
        assert check(any_host=True, host="gateway.example").own_page
        assert refusal(OriginRules(allowed_hosts=["gateway.example"]), any_host=True, host="other")[0] == 403

    @pytest.mark.parametrize(
        "host",
        [
            "localhost/#@evil.example",
            "localhost#",
            "localhost?x",
            "user@localhost",
            "localhost:80:80",
            "localhost:port",
            "",
            " localhost evil",
            "localhost, evil.example",
            "[::1",
            "x" * 300,
            "b\xfccher.example",
        ],
    )
    def test_what_is_not_a_host_is_refused(self, host: str) -> None:
        """CVE-2026-49468: such a value changed the path that a URL was composed of."""
        assert refusal(any_host=True, host=host) == (400, "invalid_host")

    def test_two_or_no_host_headers_are_refused(self) -> None:
        assert refusal(host=["localhost", "evil.example"])[1] == "invalid_host"
        assert refusal(any_host=True, host=[])[1] == "invalid_host"


class TestPages:
    @pytest.mark.parametrize("origin", ["http://localhost:8080", "HTTP://LOCALHOST:8080"])
    def test_a_page_of_this_server_may_call(self, origin: str) -> None:
        assert check(origin=origin, sec_fetch_site="same-origin").own_page
        assert check(origin=origin).own_page

    def test_default_ports_are_not_written(self) -> None:
        assert check(host="localhost", origin="http://localhost").own_page
        assert check(host="localhost", origin="https://localhost").own_page
        assert check(host="localhost:443", origin="https://localhost").own_page
        assert refusal(host="localhost", origin="http://localhost:81")[0] == 403

    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost:8080.evil.example",
            "http://evil.example:8080",
            "chrome-extension://abcdef",
            "file://",
            "http://localhost:8080/path",
            "",
        ],
    )
    def test_a_page_of_another_origin_may_not(self, origin: str, method: str) -> None:
        assert refusal(method=method, origin=origin) == (403, "foreign_origin")

    def test_a_browser_that_says_cross_site_is_believed(self) -> None:
        assert refusal(method="GET", sec_fetch_site="cross-site") == (403, "foreign_origin")
        assert refusal(method="POST", sec_fetch_site="same-site") == (403, "foreign_origin")
        assert refusal(origin="http://localhost:8080", sec_fetch_site="cross-site") == (403, "foreign_origin")
        assert not check(method="GET", sec_fetch_site="same-site").own_page
        for site in ("same-origin", "none"):
            assert check(method="GET", sec_fetch_site=site).own_page

    def test_two_different_origins_are_refused(self) -> None:
        assert refusal(origin=["http://localhost:8080", "https://evil.example"]) == (400, "invalid_origin")

    def test_a_listed_origin_may_call_without_cookies(self) -> None:
        rules = OriginRules(cors_origins=[LISTED + "/"])
        source = check(rules, origin=LISTED, sec_fetch_site="cross-site")
        headers = dict(source.cors)
        assert not source.own_page
        assert headers[b"access-control-allow-origin"] == LISTED.encode()
        assert headers[b"vary"] == b"origin"
        assert b"access-control-allow-credentials" not in headers
        assert refusal(rules, origin="https://other.example.org")[0] == 403
        assert refusal(rules, origin="http://app.example.org")[0] == 403

    def test_all_origins_may_be_listed_and_still_none_with_cookies(self) -> None:
        source = check(OriginRules(cors_origins=["*"]), origin="null")
        assert dict(source.cors)[b"access-control-allow-origin"] == b"*"
        assert b"access-control-allow-credentials" not in dict(source.cors)
        assert not source.own_page

    def test_a_preflight_request_is_answered_for_listed_origins(self) -> None:
        rules = OriginRules(cors_origins=[LISTED])
        wanted = [(b"access-control-request-method", b"POST")]
        listed = check(rules, "OPTIONS", origin=LISTED)
        found = dict(rules.preflight(listed, "OPTIONS", wanted) or ())
        for name in (b"authorization", b"apikey", b"x-client-info", b"content-type"):
            assert name in found[b"access-control-allow-headers"].split(b", ")
        assert rules.preflight(listed, "OPTIONS", []) is None
        assert rules.preflight(listed, "POST", wanted) is None
        assert rules.preflight(check(rules, "OPTIONS"), "OPTIONS", wanted) is None

    @pytest.mark.parametrize("entry", ["app.example.org", "https://", "https://a.example/path", "null", ""])
    def test_an_entry_that_is_no_origin_is_refused_at_start(self, entry: str) -> None:
        with pytest.raises(ConfigError, match="is not an origin"):
            OriginRules(cors_origins=[entry])


class TestProxies:
    FORWARDED = {
        "x_forwarded_for": "6.6.6.6, 203.0.113.9, 10.0.0.2",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "ai.example",
    }

    def test_nothing_is_believed_of_an_unlisted_peer(self) -> None:
        source = check(OriginRules(trusted_proxies=["10.0.0.0/8"]), peer="203.0.113.1", **self.FORWARDED)
        assert (source.address, source.scheme) == ("203.0.113.1", "http")
        assert check(**self.FORWARDED).address == "127.0.0.1"
        # The name that it forwards is not what decides about the page either.
        assert refusal(origin="https://ai.example", **self.FORWARDED)[0] == 403

    def test_a_trusted_proxy_says_who_calls_and_only_the_last_foreign_address_counts(self) -> None:
        rules = OriginRules(trusted_proxies=["127.0.0.1", "10.0.0.0/8"], allowed_hosts=["ai.example"])
        source = check(rules, origin="https://ai.example", **self.FORWARDED)
        assert (source.address, source.scheme, source.own_page) == ("203.0.113.9", "https", True)

    @pytest.mark.parametrize("chain", ["", "nonsense", "203.0.113.9, nonsense", ["203.0.113.9", "x"]])
    def test_an_address_that_cannot_be_read_is_not_used(self, chain: Any) -> None:
        source = check(OriginRules(trusted_proxies=["127.0.0.1"]), x_forwarded_for=chain)
        assert source.address == "127.0.0.1"

    def test_a_forwarded_host_is_checked_as_any_other(self) -> None:
        rules = OriginRules(trusted_proxies=["127.0.0.1"])
        assert refusal(rules, x_forwarded_host="evil.example")[1] == "host_not_allowed"
        assert refusal(rules, x_forwarded_host="localhost/#@x")[1] == "invalid_host"

    def test_an_invalid_network_is_refused_at_start(self) -> None:
        with pytest.raises(ConfigError, match="neither an address"):
            OriginRules(trusted_proxies=["proxy.example"])


class TestRemembered:
    """What was accepted is remembered by all that it depends on."""

    def test_a_request_that_differs_is_looked_at_anew(self) -> None:
        rules = OriginRules(trusted_proxies=["10.0.0.0/8"], cors_origins=[LISTED])
        for _ in range(2):
            assert check(rules, origin=LISTED).cors
            assert not check(rules).cors
            assert refusal(rules, host="evil.example")[1] == "host_not_allowed"
            assert check(rules, any_host=True, host="evil.example").own_page
            assert refusal(rules, method="POST", sec_fetch_site="same-site")[0] == 403
            assert check(rules, method="GET", sec_fetch_site="same-site").own_page is False
            assert check(rules, peer="10.0.0.1", x_forwarded_for="8.8.8.8").address == "8.8.8.8"
            assert check(rules, peer="127.0.0.1", x_forwarded_for="8.8.8.8").address == "127.0.0.1"
            assert check(rules, peer="10.0.0.1", x_forwarded_proto="https").scheme == "https"
            assert refusal(rules, host=["localhost", "localhost"]) == (400, "invalid_host")

    def test_callers_cannot_fill_the_memory(self) -> None:
        rules = OriginRules(trusted_proxies=["10.0.0.0/8"])
        for number in range(2 * MAX_CHECKED_ENTRIES):
            check(rules, peer="10.0.0.1", x_forwarded_for=f"8.8.{number // 256}.{number % 256}")
            assert rules.remembered <= MAX_CHECKED_ENTRIES
        before = rules.remembered
        check(rules, peer="10.0.0.1", x_forwarded_for=f"8.8.8.8{' ' * MAX_CHECKED_BYTES}")
        assert rules.remembered == before
