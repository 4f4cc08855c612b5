"""`hf-gateway logout`: remove a token from the keyring of the operating system."""

import argparse
import os

from hf_gateway.cli.login import add_origin, origin
from hf_gateway.cli.output import console, print_json
from hf_gateway.errors import visible
from hf_gateway.keys.credentials import HUB, TOKEN_VARIABLES, origin_of
from hf_gateway.settings.config_file import hub_url

TAKES_A_CHAIN = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_origin(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--all", action="store_true", help="remove the keys of all origins")


def run(arguments: argparse.Namespace) -> int:
    """Remove keys; return 0 if they are gone, even if nothing was stored, and 1 if the keyring could not be asked."""
    from hf_gateway.keys import os_keyring

    wanted = _all() if arguments.all else [origin(arguments)]
    erased, forgotten = [], dict[str, str]()
    for each in wanted:
        # Without a record of ours nothing can be stored, and a machine without a keyring need not report an error.
        if not os_keyring.has_stored_key(each):
            continue
        try:
            if os_keyring.erase(each):
                erased.append(each)
        except (os_keyring.KeyringUnusable, ImportError) as error:
            forgotten[each] = str(error).removesuffix(f"; {os_keyring.INSTEAD}")
    for path in os_keyring.unreadable_files() if arguments.all else ():
        path.unlink(missing_ok=True)
        forgotten[str(path)] = "it was damaged, and did not name a server any more"
    left = _other_tokens() if origin_of(HUB) in wanted else []
    if arguments.json:
        print_json({"erased": erased, "forgotten": forgotten, "still": left})
        return 1 if forgotten else 0
    out = console()
    for each in wanted:
        if each not in forgotten:
            out.print(f"{each}: {'erased from the keyring' if each in erased else 'nothing was stored'}", markup=False)
    for each, reason in forgotten.items():
        out.print(
            f"{each}: forgotten, and not used any more. But the keyring could not be asked for it ({visible(reason)}), so the "
            f"key may still be there, under the name {os_keyring.SERVICE!r}",
            markup=False,
        )
    if not wanted and not forgotten:
        out.print("nothing was stored")
    for each in left:
        out.print(f"  a token is still found in {each}", markup=False)
    return 1 if forgotten else 0


def _all() -> list[str]:
    """Return the origins that a key is stored for; the Hub's also if its record is damaged."""
    from hf_gateway.keys import os_keyring

    known = {each.origin for each in os_keyring.stored_keys()}
    return sorted(known | {each for each in map(origin_of, (HUB, hub_url())) if os_keyring.has_stored_key(each)})


def _other_tokens() -> list[str]:
    """Return the other places in which a Hugging Face token is found."""
    from huggingface_hub import get_token

    found = [f"the environment variable {name}" for name in TOKEN_VARIABLES if os.environ.get(name, "").strip()]
    return found or (["`hf auth login` (end it with `hf auth logout`)"] if get_token() else [])
