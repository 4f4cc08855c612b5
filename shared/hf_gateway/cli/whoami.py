"""`hf-gateway whoami`: show which key is in use, where it was found, whose it is, and what it may do."""

import argparse
from typing import Any

from hf_gateway.cli.login import account_of, add_origin, hub_at
from hf_gateway.cli.output import console, print_json
from hf_gateway.errors import GatewayError, KeyMissing, visible
from hf_gateway.keys.credentials import HUB, find_credential, is_hugging_face, origin_of
from hf_gateway.settings.config_file import hub_url
from hf_gateway.values.redaction import public_part
from hf_gateway.values.target import checked_url

TAKES_A_CHAIN = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_origin(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the account; return 0 if there is a key and, for the Hub, it is valid."""
    from hf_gateway.keys import os_keyring

    url = checked_url(arguments.origin, "--origin") if arguments.origin else hub_url()
    hub = HUB if is_hugging_face(url) else hub_at(origin_of(url))
    credential = find_credential(url)
    if credential is None:
        more = (
            "set HF_TOKEN, or run `hf-gateway login`"
            if hub == HUB
            else f"run `hf-gateway login --origin {public_part(url)}`"
        )
        raise KeyMissing(f"there is no key for {origin_of(url)}; {more}")
    report: dict[str, Any] = {"origin": origin_of(url), "source": credential.source, "account": None, "error": None}
    report["stored_for"] = [each.origin for each in os_keyring.stored_keys()]
    words, code = [], 0
    if hub is not None:
        try:
            account = account_of(credential.secret, hub)
            report["account"] = account.to_dict()
            words = [account.name, *account.in_words()]
            if account.organizations:
                words.append(f"in {', '.join(sorted(account.organizations))}")
        except GatewayError as error:
            report["error"], code = str(error), 1
    if arguments.json:
        print_json(report)
        return code
    out = console()
    for word in words:
        out.print(visible(word), markup=False)
    out.print(f"key for {report['origin']}, found in {credential.source}", markup=False)
    if report["error"]:
        out.print(f"its permissions are unknown: {visible(report['error'])}", markup=False)
    others = [each for each in report["stored_for"] if each != origin_of(url)]
    if others:
        out.print(f"also stored in the keyring: {', '.join(others)}", markup=False)
    return code
