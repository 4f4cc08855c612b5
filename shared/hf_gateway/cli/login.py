"""`hf-gateway login`: store a token in the keyring of the operating system, after checking it with the Hub."""

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
    """Add the command's arguments."""
    add_origin(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--token-stdin", action="store_true", help="read the token from the first line of stdin")
    # Accepted only to be refused: argparse would print the token in its own error.
    parser.add_argument("--token", nargs="?", action="append", default=[], dest="typed", help=argparse.SUPPRESS)
    parser.add_argument("also_typed", nargs="*", help=argparse.SUPPRESS)


def add_origin(parser: argparse.ArgumentParser) -> None:
    """Add the option for the origin of a key."""
    parser.add_argument(
        "--origin", metavar="URL", help="a server of your own, such as https://my-tei:8080; by default the Hub"
    )


def origin(arguments: argparse.Namespace) -> str:
    """Return the origin that a key is for: the one given, or the configured Hub's. Raises ConfigError for an invalid URL."""
    url = checked_url(arguments.origin, "--origin") if arguments.origin is not None else hub_url()
    # Hugging Face's router and its endpoints accept the same token as its Hub.
    return origin_of(HUB) if is_hugging_face(url) else origin_of(url)


def _unquoted(arguments: argparse.Namespace) -> str:
    """Return `origin`; its error does not repeat the argument, since an invalid URL may be a key."""
    try:
        return origin(arguments)
    except ConfigError as error:
        if arguments.origin is None:
            raise
        message = error.message.replace(repr(shown_url(arguments.origin)), "the value")
    if arguments.origin in message:
        message = "the value of --origin is not a URL that a key could be sent to"
    raise ConfigError(message)


def hub_at(where: str) -> str | None:
    """Return the base URL of the Hub at an origin; None for any other kind of server."""
    if where == origin_of(HUB):
        return HUB
    hub = hub_url()
    return hub if origin_of(hub) == where else None


def run(arguments: argparse.Namespace) -> int:
    """Store a key; return 0 if the keyring returns it."""
    if arguments.typed or arguments.also_typed:
        raise ConfigError(
            "a token does not belong on the command line: the shell stores it in its history, and every user of this machine "
            "sees it among the processes. Run `hf-gateway login` and paste it at the prompt, or pipe it in with --token-stdin. "
            "If it was a real one, replace it with a new one"
        )
    from hf_gateway.keys import os_keyring

    where = _unquoted(arguments)
    hub = hub_at(where)
    secret = _token(arguments, "Hugging Face" if hub == HUB else where)
    if hub == HUB and not secret.reveal().startswith("hf_"):
        raise ConfigError(
            "a Hugging Face token begins with hf_, and this one does not; for another server give its --origin"
        )
    account, failure = _check_token(secret, hub) if hub is not None else (None, None)
    before = os_keyring.store(where, secret)
    backend = next(each.backend for each in os_keyring.stored_keys() if each.origin == where)
    if arguments.json:
        print_json(
            {
                "origin": where,
                "backend": backend,
                "replaced": before is not None,
                "account": account.to_dict() if account else None,
                "unchecked": failure,
            }
        )
        return 0
    _print_stored(console(), where, backend, account, failure, before)
    return 0


def account_of(secret: Secret, hub: str, timeout: float = 10.0) -> HubAccount:
    """Return the account of a token, as the Hub names it.

    Args:
        secret: the token.
        hub: base URL of the Hub.
        timeout: seconds for the request.

    Raises:
        AuthenticationFailed, ConnectFailed: and other failures; the token is not in their messages.
    """
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
    """Return the token's account, or why it could not be checked. Raises AuthenticationFailed if the Hub refuses the token."""
    try:
        return account_of(secret, hub), None
    except AuthenticationFailed:
        pass
    except GatewayError as error:
        return None, str(error)
    raise AuthenticationFailed(
        "the Hub refuses this token, so it was not stored; create one at https://huggingface.co/settings/tokens"
    )


def _print_stored(
    out: Any, where: str, backend: str, account: HubAccount | None, failure: str | None, before: Any
) -> None:
    verb = f"replaced (the previous one was stored {before.since})" if before else "stored"
    out.print(f"[green]{literal(verb)}[/green] for {literal(where)} in the keyring ({literal(backend)}), and read back")
    if account is not None:
        out.print(f"  it is {literal(account.name)}'s: {literal('; '.join(account.in_words()))}")
    if where.startswith("http://") and urlsplit(where).hostname not in ("localhost", "127.0.0.1", "::1"):
        out.print("  [yellow]plain http:[/yellow] the key can be read on its way to the server")
    if failure is not None:
        out.print(f"  [yellow]the token could not be checked:[/yellow] {literal(failure)}")
