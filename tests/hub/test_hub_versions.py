"""Which huggingface_hub this run is about; the same tests run beside both majors."""

import os

import pytest

from tests.support.late import COLLECTED

if COLLECTED:
    import huggingface_hub


def test_the_version_under_test_is_the_one_that_was_meant() -> None:
    meant = "1.33.0" if "hub-1.33" in os.environ.get("PYTHONPATH", "") else "2."
    assert huggingface_hub.__version__.startswith(meant)


@pytest.mark.xdist_group("torch")
def test_the_local_model_embeds_beside_this_version() -> None:
    from hf_gateway import Gateway

    assert Gateway("all-MiniLM-L6-v2").embed(["a text"]).vectors.dim == 384


def test_the_login_of_this_version_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_gateway.keys.credentials import find_credential

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_login")
    found = find_credential("https://huggingface.co", environment={})
    assert found is not None
    assert found.source == "`hf auth login`"
