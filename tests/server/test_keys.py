"""Keys of callers: their form, what is stored of them, what they allow, and the command that makes the first one."""

import datetime as dt
import inspect
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError
from hf_gateway.server.access import keys
from hf_gateway.server.access.caller import SCOPES, Caller
from hf_gateway.server.access.keys import is_same, new_key, parse_key
from hf_gateway.server.access.rights import KeyRights
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_engine
    from hf_gateway.server.access import store

ALL = frozenset(SCOPES)
MINE = KeyRights(name="mine", scopes=frozenset({"embed", "read"}), tenant="acme")
ADMIN = Caller(key="a" * 12, scopes=ALL)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_ledger(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def engine(url: str) -> Iterator["sa.Engine"]:
    made = open_engine(url)
    yield made
    made.dispose()


class TestForm:
    def test_has_at_least_256_random_bits_and_a_public_part(self) -> None:
        made = {new_key()[0] for _ in range(200)}
        assert len(made) == 200
        for text in made:
            prefix, public, secret = re.fullmatch(r"(hfg)_([a-z2-9]{12})_([A-Za-z0-9_-]{43})", text).groups()  # type: ignore[union-attr]
            assert (prefix, len(public)) == ("hfg", 12)
            assert len(secret) * 6 >= 256

    def test_what_is_kept_does_not_contain_the_key(self) -> None:
        text, kept = new_key()
        assert parse_key(text) == kept
        secret = text[17:]
        assert secret not in repr(kept)
        assert secret.encode() not in kept.sha256
        assert repr(kept.sha256) not in repr(kept)

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text[:-1],
            lambda text: text + "A",
            lambda text: text.upper(),
            lambda text: " " + text,
            lambda text: text + "\n",
            lambda text: text.replace("hfg_", "hfg_' OR 1=1 --", 1),
            lambda text: text[:20] + "'" + text[21:],
            lambda text: text[:20] + "\0" + text[21:],
            lambda text: text[:20] + "\N{FULLWIDTH DIGIT ONE}" + text[21:],
            lambda text: text[:17],
            lambda text: "sk-1234",
            lambda text: "",
            lambda text: keys.digest(text).hex(),
        ],
    )
    def test_anything_else_is_not_a_key_and_is_never_looked_up(self, change: Any) -> None:
        assert parse_key(change(new_key()[0])) is None

    def test_digests_are_compared_by_hmac_and_an_unknown_key_takes_the_same_way(self) -> None:
        _, kept = new_key()
        assert is_same(kept.sha256, kept.sha256)
        assert not is_same(kept.sha256, None)
        assert not is_same(bytes(32), None)
        # That its time does not depend on the content is what the function is for, and nothing else compares.
        assert "compare_digest" in inspect.getsource(is_same)
        assert "==" not in inspect.getsource(store.StoredKey.accepts)


class TestStore:
    def test_the_database_has_no_key(self, engine: "sa.Engine") -> None:
        text, made = store.create_key(engine, MINE)
        with engine.connect() as connection:
            stored = [str(tuple(row)) for row in connection.execute(sa.text("SELECT * FROM gateway_keys"))]
        assert text[17:] not in "".join(stored)
        assert "sha256" not in json.dumps(made.to_json())
        assert repr(keys.digest(text)) not in repr(made)

    def test_a_key_is_accepted_and_another_with_its_public_part_is_not(self, engine: "sa.Engine") -> None:
        text, made = store.create_key(engine, MINE)
        found = store.find_key(engine, made.id)
        assert found is not None
        other, forged = new_key(made.id)
        assert other != text
        assert found.accepts(keys.digest(text), time.time())
        assert not found.accepts(forged.sha256, time.time())
        assert found.caller == Caller(key=made.id, tenant="acme", scopes=frozenset({"embed", "read"}))

    def test_rights_come_back_as_they_were_stored(self, engine: "sa.Engine") -> None:
        expires = dt.datetime(2090, 1, 31, 12, tzinfo=dt.UTC)
        limits: dict[str, Any] = {"requests_per_minute": 60, "tokens_per_minute": 10_000, "parallel": 4}
        rights = replace(MINE, chains=frozenset({"docs", "chat"}), expires=expires, **limits)
        _, made = store.create_key(engine, rights)
        found = store.find_key(engine, made.id)
        assert found is not None
        assert found.rights == rights
        caller = found.caller
        assert Caller.from_json(json.loads(json.dumps(caller.to_json()))) == caller
        assert (caller.expires, caller.parallel) == (expires.timestamp(), 4)
        assert (caller.may_use("docs"), caller.may_use("images")) == (True, False)

    def test_an_expired_or_revoked_key_is_not_accepted(self, engine: "sa.Engine") -> None:
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        text, made = store.create_key(engine, replace(MINE, expires=expires))
        assert made.accepts(keys.digest(text), expires.timestamp() - 1)
        assert not made.accepts(keys.digest(text), expires.timestamp())
        assert not store.revoke_key(engine, made.id).accepts(keys.digest(text), time.time())

    def test_a_rotation_replaces_the_secret_at_once_or_after_a_grace(self, engine: "sa.Engine") -> None:
        first, made = store.create_key(engine, MINE)
        second, rotated = store.rotate_key(engine, made.id)
        assert (rotated.id, rotated.rights) == (made.id, made.rights)
        assert not rotated.accepts(keys.digest(first), time.time())
        assert rotated.accepts(keys.digest(second), time.time())
        third, again = store.rotate_key(engine, made.id, dt.timedelta(hours=1))
        assert all(again.accepts(keys.digest(text), time.time()) for text in (second, third))
        assert not again.accepts(keys.digest(first), time.time())
        assert not again.accepts(keys.digest(second), time.time() + 3601)

    def test_a_revoked_key_cannot_be_rotated_back(self, engine: "sa.Engine") -> None:
        _, made = store.create_key(engine, MINE)
        store.revoke_key(engine, made.id)
        with pytest.raises(ConfigError, match="was revoked"):
            store.rotate_key(engine, made.id)

    def test_whether_there_are_keys(self, engine: "sa.Engine") -> None:
        assert not store.has_keys(engine)
        _, made = store.create_key(engine, MINE)
        store.revoke_key(engine, made.id)
        # Otherwise revoking the last key would open the server.
        assert store.has_keys(engine)

    def test_the_text_of_a_right_is_a_value_and_no_statement(self, engine: "sa.Engine") -> None:
        name = "x'); DROP TABLE gateway_keys; --"
        store.create_key(engine, replace(MINE, name=name, tenant=name))
        assert [each.rights.name for each in store.all_keys(engine, name)] == [name]
        assert store.all_keys(engine, "' OR '1' = '1") == []
        assert store.find_key(engine, "' OR 1=1 --") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scopes": frozenset()}, "could do nothing"),
        ({"scopes": frozenset({"embedd"})}, "did you mean 'embed'"),
        ({"tenant": "*"}, "cannot be a tenant"),
        ({"tenant": "key:abcdefghijkm"}, "cannot be a tenant"),
        ({"tenant": ""}, "tenant is 1 to 200"),
        ({"name": "two\nlines"}, "name is 1 to 200"),
        ({"chains": frozenset()}, "could use no chain"),
        ({"parallel": 0}, "parallel is a number from 1 to 2,147,483,647, not 0"),
        ({"tokens_per_minute": 10**12}, "from 1 to 2,147,483,647, not 1,000,000,000,000"),
        ({"expires": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "in the past"),
        ({"expires": dt.datetime(2090, 1, 1)}, "needs its time zone"),  # noqa: DTZ001 - that is the point
    ],
)
def test_rights_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(MINE, **change).checked(dt.datetime.now(dt.UTC))


NARROW = {
    "scopes": (Caller(scopes=ALL - {"chat"}), "the scopes chat"),
    "tenant": (Caller(scopes=ALL, tenant="globex"), "another tenant"),
    "chains": (Caller(scopes=ALL, chains=frozenset({"docs"})), "other chains"),
    "expiry": (Caller(scopes=ALL, expires=time.time() + 1e6), "a later expiry"),
    "requests": (Caller(scopes=ALL, requests_per_minute=5), "a higher requests_per_minute"),
    "parallel": (Caller(scopes=ALL, parallel=5), "a higher parallel"),
}


class TestNeverWider:
    @pytest.mark.parametrize("what", NARROW)
    def test_than_the_key_of_its_maker(self, what: str, engine: "sa.Engine") -> None:
        maker, words = NARROW[what]
        with pytest.raises(store.NotNarrower, match=words):
            store.create_key(engine, replace(MINE, scopes=ALL), maker)
        assert store.all_keys(engine) == []

    @pytest.mark.parametrize("what", sorted(NARROW.keys() - {"tenant"}))
    def test_by_changing_or_rotating_a_key_that_has_more(self, what: str, engine: "sa.Engine") -> None:
        maker, words = NARROW[what]
        _, made = store.create_key(engine, replace(MINE, scopes=ALL))
        before = store.find_key(engine, made.id)
        with pytest.raises(store.NotNarrower, match=words):
            store.rotate_key(engine, made.id, maker=maker)
        with pytest.raises(store.NotNarrower, match=words):
            store.change_key(engine, made.id, {"name": "taken over"}, maker)
        assert store.find_key(engine, made.id) == before

    @pytest.mark.parametrize("what", ["scopes", "chains"])
    def test_nor_ends_it_but_for_its_own(self, what: str, engine: "sa.Engine") -> None:
        maker, words = NARROW[what]
        _, made = store.create_key(engine, replace(MINE, scopes=ALL))
        with pytest.raises(store.NotNarrower, match=words):
            store.revoke_key(engine, made.id, maker)
        assert store.find_key(engine, made.id) == made
        assert store.revoke_key(engine, made.id, replace(maker, key=made.id)).revoked is not None

    @pytest.mark.parametrize("what", ["expiry", "requests", "parallel"])
    def test_but_ends_one_of_more_use(self, what: str, engine: "sa.Engine") -> None:
        _, made = store.create_key(engine, replace(MINE, scopes=ALL))
        assert store.revoke_key(engine, made.id, NARROW[what][0]).revoked is not None

    def test_a_change_beside_another_gives_no_right_back(
        self, engine: "sa.Engine", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, made = store.create_key(engine, replace(MINE, scopes=ALL))
        check, read, narrowed = store._check_maker, threading.Event(), threading.Event()

        def late(connection: "sa.Connection", maker: Caller | None, rights: KeyRights) -> None:
            if threading.current_thread().name.startswith("renames"):
                read.set()
                narrowed.wait(0.5)  # the other one waits for this one's row meanwhile
            check(connection, maker, rights)

        monkeypatch.setattr(store, "_check_maker", late)
        with ThreadPoolExecutor(1, "renames") as first, ThreadPoolExecutor(1) as second:
            renaming = first.submit(store.change_key, engine, made.id, {"name": "renamed"})
            assert read.wait(60)
            narrowing = second.submit(store.change_key, engine, made.id, {"scopes": frozenset({"embed"})})
            narrowing.add_done_callback(lambda _: narrowed.set())
            assert (renaming.result(60).rights.name, narrowing.result(60).rights.scopes) == ("renamed", {"embed"})
        found = store.find_key(engine, made.id)
        assert found is not None
        assert (found.rights.name, found.rights.scopes) == ("renamed", {"embed"})

    def test_and_of_another_tenant_it_is_not_even_seen(self, engine: "sa.Engine") -> None:
        _, made = store.create_key(engine, MINE)
        other = replace(ADMIN, tenant="globex")
        for act in (
            lambda: store.revoke_key(engine, made.id, other),
            lambda: store.rotate_key(engine, made.id, maker=other),
            lambda: store.change_key(engine, made.id, {"name": "mine"}, other),
        ):
            with pytest.raises(store.UnknownKey):
                act()
        assert store.all_keys(engine, "globex") == []
        assert store.revoke_key(engine, made.id, replace(ADMIN, tenant="acme")).revoked is not None


class TestCommand:
    def keys(self, url: str, *arguments: str) -> int:
        return main(["keys", *arguments, "--database", url])

    def test_shows_a_key_once(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.keys(url, "create", "--name", "laptop", "--tenant", "acme", "--scopes", "all") == 0
        out, err = capsys.readouterr()
        text = out.strip()
        found = parse_key(text)
        assert found is not None
        assert "the only time" in err
        assert text not in err
        for action in (("list",), ("list", "--json"), ("change", found.id, "--parallel", "3"), ("revoke", found.id)):
            assert self.keys(url, *action) == 0
            shown = "".join(capsys.readouterr())
            assert found.id in shown
            assert text[17:] not in shown
            assert found.sha256.hex() not in shown

    def test_by_default_grants_use_and_reading_and_no_administration(
        self, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.keys(url, "create", "--name", "laptop", "--json") == 0
        made = json.loads(capsys.readouterr().out)
        assert made["scopes"] == ["chat", "classify", "embed", "image", "read", "rerank"]
        assert parse_key(made["key"]) is not None

    def test_changes_rotates_and_revokes(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.keys(url, "create", "--name", "laptop", "--json", "--chains", "docs", "--requests-per-minute", "5")
        made = json.loads(capsys.readouterr().out)
        assert (made["chains"], made["requests_per_minute"]) == (["docs"], 5)
        change = ("--chains", "none", "--requests-per-minute", "none", "--tokens-per-minute", "9", "--expires", "90d")
        assert self.keys(url, "change", made["id"], "--json", *change) == 0
        changed = json.loads(capsys.readouterr().out)
        assert (changed["chains"], changed["requests_per_minute"], changed["tokens_per_minute"]) == (None, None, 9)
        assert 89 < (dt.datetime.fromisoformat(changed["expires"]) - dt.datetime.now(dt.UTC)).days + 1 < 91
        assert self.keys(url, "rotate", made["id"], "--grace", "1h", "--json") == 0
        rotated = json.loads(capsys.readouterr().out)
        assert rotated["id"] == made["id"]
        assert rotated["key"] != made["key"]
        assert rotated["previous_until"] is not None
        assert self.keys(url, "revoke", made["id"], "--json") == 0
        assert json.loads(capsys.readouterr().out)["revoked"] is not None

    def test_lists_the_budgets_of_a_key(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.keys(url, "create", "--name", "laptop", "--json", "--per-day", "2.5", "--parallel", "3")
        made = json.loads(capsys.readouterr().out)
        self.keys(url, "list", "--json")
        (listed,) = json.loads(capsys.readouterr().out)["keys"]
        assert (listed["id"], listed["per_day"], listed["per_month"]) == (made["id"], "2.50", None)
        self.keys(url, "change", made["id"], "--per-month", "20")
        shown = " ".join(capsys.readouterr().out.split())
        assert "$2.50 a day" in shown
        assert "$20.00 a month" in shown

    def test_says_which_chains_the_configuration_does_not_have(
        self, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "x.toml").write_text('[chains.docs]\ntargets = ["hash"]\n')
        create = ("create", "--name", "laptop", "--config", str(tmp_path / "x.toml"), "--chains")
        assert self.keys(url, *create, "dosc") == 0
        out, err = capsys.readouterr()
        assert parse_key(out.strip()) is not None
        assert "the configuration here has no chain 'dosc'; did you mean 'docs'?" in " ".join(err.split())
        assert self.keys(url, *create, "docs") == 0
        assert "has no chain" not in capsys.readouterr().err

    def test_sets_budgets_of_the_key(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.keys(url, "create", "--name", "laptop", "--json", "--per-day", "1.50", "--per-month", "20")
        made = json.loads(capsys.readouterr().out)
        assert main(["budgets", "list", "--json", "--ledger", url]) == 0
        found = json.loads(capsys.readouterr().out)["budgets"]
        assert {(each["tenant"], each["period"], each["usd"]["limit"]) for each in found} == {
            (f"key:{made['id']}", "day", "1.50"),
            (f"key:{made['id']}", "month", "20.00"),
        }

    def test_does_not_repeat_a_key_that_was_given_for_its_public_part(
        self, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text, _ = new_key()
        assert self.keys(url, "revoke", text) == 2
        with pytest.raises(SystemExit):
            self.keys(url, "rotate", "--wrong", text)
        assert text[17:] not in "".join(capsys.readouterr())

    def test_of_an_unknown_key_says_what_is_wanted(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.keys(url, "revoke", "abcdefghijkm") == 2
        assert "there is no key with this public part" in capsys.readouterr().err
