"""Which of the targets an `api_key` is for."""

from collections.abc import Sequence

from hf_gateway.backends import Ability, open_ability
from hf_gateway.errors import ConfigError
from hf_gateway.keys.credentials import is_hugging_face, origin_of
from hf_gateway.settings.base import NamedSettings
from hf_gateway.values.secret import Secret
from hf_gateway.values.target import Target


def targets_of_key(targets: Sequence[Target], api_key: Secret | None, settings: NamedSettings) -> list[Target]:
    """Return the targets that the key of a class is for: Hugging Face's hosts, or the one server of the caller's own.

    Args:
        targets: of the chain.
        api_key: the key of the class.
        settings: of the chain.

    Raises:
        ConfigError: it could be for several servers, or would be sent to a host that it was not bound to.
    """
    if api_key is None:
        return []
    probes = [
        (target, open_ability(Ability, target, settings).server.key_url)
        for target in targets
        if target.credential is None
    ]
    ours = [target for target, url in probes if url is not None and is_hugging_face(url)]
    theirs = [
        (target, url)
        for target, url in probes
        if url is not None and not is_hugging_face(url) and target.url is not None
    ]
    if api_key.reveal().startswith("hf_") or (ours and not theirs):
        if not ours and theirs:
            target = theirs[0][0]
            raise ConfigError(
                f"api_key is a Hugging Face token, and it is not sent to {target.label!r} by itself; "
                f"if it is meant for that server, bind it: Target({target.kind!r}, url=..., credential=...)"
            )
        return ours
    origins = {origin_of(url) for _, url in theirs if url is not None}
    if len(origins) > 1:
        raise ConfigError(
            f"api_key could be meant for {len(origins)} servers ({', '.join(sorted(origins))}); "
            "give each its own: Target(..., credential=...)"
        )
    return [target for target, _ in theirs]
