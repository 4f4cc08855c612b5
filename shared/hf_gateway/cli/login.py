"""`hf-gateway login`: put a token into the keyring of the operating system, after asking the Hub whose it is."""

import argparse
import getpass
import sys
from typing import Any
from urllib.parse import urlsplit

from hf_gateway.cli.output import console, literal, print_json
from hf_gateway.errors import AuthenticationFailed, ConfigError, GatewayError
from hf_gateway.keys.credentials import HUB, Credential, is_hugging_face, origin_of
from hf_gateway.settings.config_file import hub_url
from hf_gateway.values.redaction import shown_url
from hf_gateway.values.secret import Secret
from hf_gateway.values.target import checked_url
from hf_gateway.wire.hub_account import HubAccount

TAKES_A_CHAIN = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_origin(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--token-stdin", action="store_true", help="read the token from the first line of stdin")
    # Taken only to be refused: argparse would print the token in its own error.
    parser.add_argument("--token", nargs="?", action="append", default=[], dest="typed", help=argparse.SUPPRESS)
    parser.add_argument("also_typed", nargs="*", help=argparse.SUPPRESS)


def add_origin(parser: argparse.ArgumentParser) -> None:
    """Say for whom the key is."""
    parser.add_argument(
        "--origin", metavar="URL", help="a server of your own, such as https://my-tei:8080; the Hub without it"
    )


def origin(arguments: argparse.Namespace) -> str:
    """Return the origin a key is for: the one given, or that of the Hub in force. Raises ConfigError for what is no URL."""
    url = checked_url(arguments.origin, "--origin") if arguments.origin is not None else hub_url()
    # Hugging Face's router and its endpoints take the same token as its Hub.
    return origin_of(HUB) if is_hugging_face(url) else origin_of(url)


def _unquoted(arguments: argparse.Namespace) -> str:
    """Do as `origin`; the error repeats nothing, since what is no URL may be a key."""
    try:
        return origin(arguments)
    except ConfigError as error:
        if arguments.origin is None:
            raise
        said = error.message.replace(repr(shown_url(arguments.origin)), "what was given")
    if arguments.origin in said:
        said = "what was given as --origin is no URL that a key could be sent to"
    raise ConfigError(said)


def hub_at(where: str) -> str | None:
    """Return the base of the Hub at an origin; None where there is another kind of server, as far as is known."""
    if where == origin_of(HUB):
        return HUB
    hub = hub_url()
    return hub if origin_of(hub) == where else None


def run(arguments: argparse.Namespace) -> int:
    """Store a key; 0 when the keyring gives it back."""
    if arguments.typed or arguments.also_typed:
        raise ConfigError(
            "a token does not belong on the command line: the shell keeps it in its history, and every user of this machine "
            "sees it among the processes. Run `hf-gateway login` and paste it at the prompt, or pipe it in with --token-stdin. "
            "If it was a real one, make a new one"
        )
    from hf_gateway.keys import os_keyring

    where = _unquoted(arguments)
    hub = hub_at(where)
    secret = _token(arguments, "Hugging Face" if hub == HUB else where)
    if hub == HUB and not secret.reveal().startswith("hf_"):
        raise ConfigError("this is no Hugging Face token, which begins with hf_; for another server give its --origin")
    account, doubt = _check_token(secret, hub) if hub is not None else (None, None)
    before = os_keyring.store(where, secret)
    backend = next(each.backend for each in os_keyring.stored_keys() if each.origin == where)
    if arguments.json:
        print_json(
            {
                "origin": where,
                "backend": backend,
                "replaced": before is not None,
                "account": account.to_dict() if account else None,
                "unchecked": doubt,
            }
        )
        return 0
    _print_stored(console(), where, backend, account, doubt, before)
    return 0


def account_of(secret: Secret, hub: str, timeout: float = 10.0) -> HubAccount:
    """Ask the Hub whose a token is. Raises AuthenticationFailed, ConnectFailed and others, none with the token in it."""
    from hf_gateway.http.transport import HttpTransport
    from hf_gateway.runtime.effects import Send
    from hf_gateway.wire.hub_account import decode_whoami, encode_whoami

    transport = HttpTransport()
    try:
        send = Send(encode_whoami(hub), Credential(secret, origin_of(hub), "login"))
        response = transport.send(send, timeout=timeout, connect_timeout=min(3.0, timeout), target="the Hub")
        return decode_whoami(response)
    finally:
        transport.close()


def _token(arguments: argparse.Namespace, what: str) -> Secret:
    if arguments.token_stdin:
        return Secret(sys.stdin.readline().removeprefix("\ufeff"), "the token from stdin")
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask for the token; pipe it in with --token-stdin")
    return Secret(getpass.getpass(f"Token for {what} (it is not shown): "), "the token")


def _check_token(secret: Secret, hub: str) -> tuple[HubAccount | None, str | None]:
    """Return whose token it is, or why nobody can say. Raises AuthenticationFailed for one that the Hub refuses."""
    try:
        return account_of(secret, hub), None
    except AuthenticationFailed:
        pass
    except GatewayError as error:
        return None, str(error)
    raise AuthenticationFailed(
        "the Hub refuses this token, so it was not stored; make one at https://huggingface.co/settings/tokens"
    )


def _print_stored(
    out: Any, where: str, backend: str, account: HubAccount | None, doubt: str | None, before: Any
) -> None:
    verb = f"replaced (the one before was stored {before.since})" if before else "stored"
    out.print(f"[green]{literal(verb)}[/green] for {literal(where)} in the keyring ({literal(backend)}), and read back")
    if account is not None:
        out.print(f"  it is {literal(account.name)}'s: {literal('; '.join(account.in_words()))}")
    if where.startswith("http://") and urlsplit(where).hostname not in ("localhost", "127.0.0.1", "::1"):
        out.print("  [yellow]it is plain http:[/yellow] whoever is on the way can read the key")
    if doubt is not None:
        out.print(f"  [yellow]whose it is could not be asked:[/yellow] {literal(doubt)}")
