"""What a licence means for publishing an adapter: the table, and what models' cards say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.hub import HubConnector
from hf_gateway.hub.licenses import STRICTNESS, LicenseClass, licence_class, license_of
from tests.servers.hub import Listed, ReadHub
from tests.servers.loopback import disconnect

_RESTRICTED = """
    llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 llama9.9 gemma gemma4 openrail openrail++ creativeml-openrail-m
    bigscience-bloom-rail-1.0 bigcode-openrail-m grok2-community
"""
_NON_COMMERCIAL = """
    cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-nc-9.0 apple-amlr intel-research h-research fair-noncommercial-research-license
    deepfloyd-if-license
"""
TABLE: dict[LicenseClass, list[str]] = {
    "permissive": [
        "apache-2.0",
        "mit",
        "MIT",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc0-1.0",
        "unlicense",
        "license:mit",
        " isc ",
    ],
    "copyleft": ["ofl-1.1", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "mpl-2.0", "cc-by-sa-4.0", "GPL-3.0-or-later"],
    "use-restricted": _RESTRICTED.split(),
    "non-commercial": _NON_COMMERCIAL.split(),
    "no-derivatives": ["cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"],
    "unknown": [
        "other",
        "unknown",
        "cc",
        "",
        "none",
        "my-own-license",
        "mitt",
        "apache",
        "openrail-like",
        "proprietary",
    ],
}
ROWS = [(name, expected) for expected, names in TABLE.items() for name in names]


@pytest.mark.parametrize(("identifier", "expected"), ROWS, ids=[f"{name!r} is {expected}" for name, expected in ROWS])
def test_the_class_of_an_identifier(identifier: str, expected: LicenseClass) -> None:
    assert licence_class(identifier) == expected


@pytest.mark.parametrize(
    ("identifiers", "expected"),
    [
        (None, "unknown"),
        ([], "unknown"),
        (["apache-2.0"], "permissive"),
        (["apache-2.0", "cc-by-nc-4.0"], "non-commercial"),
        (["llama3", "mit"], "use-restricted"),
        (["mit", "cc-by-nc-nd-4.0", "gpl-3.0"], "no-derivatives"),
        (["mit", "other"], "unknown"),
        ([None, 5], "unknown"),
    ],
)
def test_of_several_the_strictest_holds(identifiers: Any, expected: LicenseClass) -> None:
    assert licence_class(identifiers) == expected


@pytest.mark.parametrize("found", STRICTNESS)
def test_every_class_says_what_it_means_for_an_adapter(found: LicenseClass) -> None:
    said = license_of(TABLE[found][0])
    assert said.license_class == found
    assert "adapter" in said.meaning
    assert said.is_known is (found != "unknown")
    assert ("may be published" in said.meaning) is (found not in ("no-derivatives", "unknown"))


_DOCUMENTED = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
    artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0
    odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 gemma
    unknown other
"""


def test_all_identifiers_of_the_hubs_documentation_but_three_have_a_class() -> None:
    documented = _DOCUMENTED.split()
    assert {each for each in documented if licence_class(each) == "unknown"} == {"cc", "unknown", "other"}


CARDS: list[tuple[str, dict[str, Any], str | None, LicenseClass, str]] = [
    ("a card that names one", {"card": {"license": "apache-2.0"}}, "apache-2.0", "permissive", "may be published"),
    ("a list", {"card": {"license": ["mit", "cc-by-nc-4.0"]}}, "mit, cc-by-nc-4.0", "non-commercial", "non-commercial"),
    ("a tag alone", {"tags": ("license:llama3.1",)}, "llama3.1", "use-restricted", "restrictions"),
    ("no word of it", {}, None, "unknown", "ask the model's owner"),
    (
        "other, with a name",
        {"card": {"license": "other", "license_name": "qwen-research", "license_link": "https://x.example/LICENSE"}},
        "other",
        "unknown",
        "points to qwen-research at https://x.example/LICENSE",
    ),
    (
        "the model that it is based on",
        {"card": {"license": "mit", "base_model": ["google/gemma-2b"]}},
        "mit",
        "permissive",
        "applies as well: google/gemma-2b",
    ),
    (
        "a gate",
        {"card": {"license": "gemma"}, "gated": "manual"},
        "gemma",
        "use-restricted",
        "the terms accepted for access",
    ),
    ("nonsense in its place", {"card": {"license": {"name": "mit"}}}, None, "unknown", "ask the model's owner"),
]


@pytest.fixture
def hub() -> Iterator[ReadHub]:
    models = {f"a/m{number}": Listed(**{"tags": (), **fields}) for number, (_, fields, *_rest) in enumerate(CARDS)}
    with ReadHub(models) as server:
        yield server


@pytest.mark.parametrize("number", range(len(CARDS)), ids=[card[0] for card in CARDS])
def test_a_models_licence_online_and_then_offline(hub: ReadHub, tmp_path: Path, number: int) -> None:
    _, _, identifier, expected, said = CARDS[number]
    for _ in range(2):
        with HubConnector(endpoint=hub.url, cache=tmp_path, environment={}) as connector:
            found = connector.check_license(f"a/m{number}")
        assert (found.identifier, found.license_class) == (identifier, expected)
        assert said in found.meaning
        assert found.to_dict()["class"] == expected
        hub.always(disconnect())


async def test_the_licence_of_an_unknown_model_is_an_error(hub: ReadHub, tmp_path: Path) -> None:
    async with HubConnector(endpoint=hub.url, cache=tmp_path, environment={}) as connector:
        with pytest.raises(errors.ModelNotFound, match="there is no model 'a/none'"):
            await connector.acheck_license("a/none")
        assert (await connector.acheck_license("a/m0")).license_class == "permissive"
