"""The credential of a request: one function reads it from every header form, and from nowhere else."""

from typing import Any

import pytest

from hf_gateway.server.access.credentials import COOKIE, read_credential, refuse_key_in_url
from hf_gateway.server.access.keys import new_key
from hf_gateway.server.problems import Problem

KEY, KEPT = new_key()
OTHER, _ = new_key()
SESSION = "hfs_" + "A" * 43
TOKEN = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer %s"),
        (b"authorization", b"bearer   %s  "),
        (b"authorization", b"BEARER %s"),
        (b"x-api-key", b"%s"),
        (b"api-key", b" %s "),
    ],
)
def test_each_form_means_the_same(header: tuple[bytes, bytes]) -> None:
    name, form = header
    found = read_credential([(b"host", b"localhost"), (name, form % KEY.encode())])
    assert found is not None
    assert (found.kind, found.key) == ("key", KEPT)
    assert KEY[17:] not in repr(found)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(TOKEN, "token"), (b"sk-dummy", "other"), (b"ollama", "other"), (KEY[:-1].encode(), "other"), (b"a.b", "other")],
    ids=["three parts", "a dummy", "a name", "a part of a key", "two parts"],
)
def test_what_it_is_follows_from_its_form_alone(value: bytes, kind: str) -> None:
    found = read_credential([(b"authorization", b"Bearer " + value)])
    assert found is not None
    assert (found.kind, found.key) == (kind, None)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"apikey", KEY.encode())],
        [(b"authorization", b"Basic dXNlcjpwYXNz")],
        [(b"authorization", KEY.encode())],
        [(b"authorization", b"Bearer ")],
        [(b"x-api-key", b"")],
        [(b"proxy-authorization", b"Bearer " + KEY.encode())],
        [(b"cookie", b"session=" + KEY.encode())],
        [(b"cookie", f"{COOKIE}={KEY}".encode())],
    ],
)
def test_nothing_else_is_a_credential(headers: Any) -> None:
    assert read_credential(headers) is None


FORMS = [(b"authorization", b"Bearer %s"), (b"x-api-key", b"%s"), (b"api-key", b"%s")]


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_two_different_credentials_are_refused_and_the_same_one_twice_is_not(first: Any, second: Any) -> None:
    """A second header that another part of the program reads would skip the first one's restrictions (GHSA-57q6-fvp4-pqmm)."""
    with pytest.raises(Problem) as refused:
        read_credential([(first[0], first[1] % KEY.encode()), (second[0], second[1] % OTHER.encode())])
    assert (refused.value.status, refused.value.code) == (400, "several_credentials")
    assert KEY[17:] not in refused.value.message
    found = read_credential([(first[0], first[1] % KEY.encode()), (second[0], second[1] % KEY.encode())])
    assert found is not None
    assert found.key == KEPT


def test_a_cookie_counts_where_no_header_has_a_credential_and_its_page_may_be_our_own() -> None:
    cookie = (b"cookie", f"theme=dark; {COOKIE}={SESSION}; a=b".encode())
    found = read_credential([cookie])
    assert found is not None
    assert (found.kind, found.text) == ("session", SESSION)
    assert read_credential([cookie], cookie=False) is None
    with_header = read_credential([cookie, (b"x-api-key", KEY.encode())])
    assert with_header is not None
    assert with_header.kind == "key"


def test_two_different_session_cookies_are_refused() -> None:
    both = f"{COOKIE}={SESSION}; {COOKIE}=hfs_{'B' * 43}".encode()
    with pytest.raises(Problem, match="two different cookies"):
        read_credential([(b"cookie", both)])


@pytest.mark.parametrize("value", [b"A" * 20_000, b"\xff\xfe" * 4])
def test_what_cannot_be_a_credential_is_refused_and_not_repeated(value: bytes) -> None:
    with pytest.raises(Problem) as refused:
        read_credential([(b"x-api-key", value)])
    assert refused.value.status == 400
    assert value.decode("latin-1")[:8] not in refused.value.message


@pytest.mark.parametrize("query", ["api_key={}", "x=1&token=Bearer%20{}", "{}"])
def test_a_key_in_a_url_is_refused_with_what_to_do(query: str) -> None:
    with pytest.raises(Problem, match="keys rotate") as refused:
        refuse_key_in_url(query.format(KEY).encode())
    with pytest.raises(Problem, match="keys rotate"):
        refuse_key_in_url(query.format(KEY).upper().encode())
    assert KEY[17:] not in refused.value.message
    with pytest.raises(Problem, match="keys rotate"):
        refuse_key_in_url(b"", f"/v1/models/{KEY}".encode())
    refuse_key_in_url(b"model=hf_gateway&q=hugging+face", b"/v1/models/hfg_small")
