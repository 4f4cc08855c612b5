"""Targets: the short form, the long form, and what is refused."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gateway import Gateway, Target, VectorSpace
from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.values.vector_space import canonical


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("local", Target("local")),
        ("local:intfloat/e5-small-v2", Target("local", model="intfloat/e5-small-v2")),
        ("local:org/model@refs/pr/1", Target("local", model="org/model", revision="refs/pr/1")),
        ("hf", Target("hf")),
        ("hf:scaleway", Target("hf", provider="scaleway")),
        ("tei:http://tei:8080", Target("tei", url="http://tei:8080")),
        ("tei:http://tei:8080/", Target("tei", url="http://tei:8080")),
        ("openai:https://host/v1", Target("openai", url="https://host/v1")),
        ("openai:http://[::1]:8000", Target("openai", url="http://[::1]:8000")),
        ("ollama", Target("ollama")),
        ("ollama:nomic-embed-text:v1.5", Target("ollama", model="nomic-embed-text:v1.5")),
        ("hash", Target("hash")),
        ("hash:512", Target("hash", options={"dim": 512})),
        (" local ", Target("local")),
        ("mykind:something", Target("mykind", model="something")),
        ("local:/home/me@corp/missing", Target("local", model="/home/me@corp/missing")),
        ("local:~/me@corp/missing", Target("local", model="~/me@corp/missing")),
        ("local:./me@corp", Target("local", model="./me@corp")),
        (r"local:C:\models\me@corp", Target("local", model=r"C:\models\me@corp")),
        ("local:C:/models/minilm", Target("local", model="C:/models/minilm")),
        (r"local:\\share\models@2", Target("local", model=r"\\share\models@2")),
        ("local:org/model@v1@beta", Target("local", model="org/model", revision="v1@beta")),
        ("local:org/model@fix#12", Target("local", model="org/model", revision="fix#12")),
        ("local:org/model@v2(final)", Target("local", model="org/model", revision="v2(final)")),
        ("local:org/model@größer", Target("local", model="org/model", revision="größer")),
    ],
)
def test_the_short_form_is_the_long_form(text: str, target: Target) -> None:
    assert Target.of(text) == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not the kind of a target"),
        ("http://tei:8080", "is not an http or https URL|there is no kind|not a URL|kind"),
        ("tei:tei:8080", "needs a whole URL, such as 'tei:http://tei:8080'"),
        ("tei:ftp://tei", "not an http or https URL"),
        ("tei:http://tei:port", "is not a URL"),
        ("tei:http://user:secret@tei:8080", "carries a user name or password"),
        ("tei:http://tei#x", "fragment"),
        ("local:org/model@", "is not a revision"),
        ("local:org/model@a..b", "is not a revision"),
        ("local:org/model@has blank", "is not a revision"),
        ("local:org/model@-x", "is not a revision"),
        ("local:org/model@x/", "is not a revision"),
        ("local:org/model@x.", "is not a revision"),
        ("local:org/model@.x", "is not a revision"),
        ("local:org/model@a/.b", "is not a revision"),
        ("local:org/model@a.lock", "is not a revision"),
        ("local:org/model@a.lock/b", "is not a revision"),
        ("local:org/model@@", "is not a revision"),
        ("local:org/model@a@{1}", "is not a revision"),
        ("local:org/model@a~1", "is not a revision"),
        ("local:org/model@a^", "is not a revision"),
        ("local:org/model@a:b", "is not a revision"),
        ("local:org/model@a?", "is not a revision"),
        ("local:org/model@a*", "is not a revision"),
        ("local:org/model@a[1]", "is not a revision"),
        (r"local:org/model@a\b", "is not a revision"),
        ("local:org/model@a\x07b", "is not a revision"),
        ("local:org/model@" + "a" * 251, "is not a revision"),
        ("local:/nowhere/at/all@corp", "'/nowhere/at/all@corp' is not a folder with a model in it"),
        (r"local:C:\nowhere\m", "is not a folder with a model in it"),
        ("hash:many", "the argument is a dimension"),
        ("hash:-1", "the argument is a dimension"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Gateway("m", [text])
    assert "secret" not in str(caught.value)


def test_a_folder_is_cut_at_an_at_sign_only_where_the_part_before_it_is_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "me@corp" / "model@2"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "me@corp/model@2"):
        assert Target.of(f"local:{name}") == Target("local", model=name)
        assert Target.of(Target("local", model=name).label) == Target("local", model=name)
    assert Target.of(f"local:{folder}@main") == Target("local", model=str(folder), revision="main")


@pytest.mark.parametrize("name", ["me@corp/model", "model (copy) #2", "größer", "a b"])
@pytest.mark.parametrize("said", ["model", "target"])
def test_a_models_folder_may_be_called_anything(tmp_path: Path, name: str, said: str) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 4}')
    gateway = Gateway(str(folder)) if said == "model" else Gateway(targets=[f"local:{folder}"])
    assert gateway.targets[0].model == str(folder)
    assert gateway.space.dimension == 4


@pytest.mark.parametrize(
    ("kind", "meant"), [("tie", "tei"), ("ollamma", "ollama"), ("locale", "local"), ("open-ai", "openai")]
)
def test_an_unknown_kind_names_the_nearest(kind: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        Gateway("m", [f"{kind}:http://h"])


def test_an_unknown_field_or_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'revision'"):
        Target.of({"kind": "local", "revison": "main"})
    with pytest.raises(ConfigError, match="did you mean 'device'"):
        Gateway("m", [Target("local", options={"devise": "cpu"})])
    with pytest.raises(ConfigError, match="needs its kind"):
        Target.of({"model": "m"})


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("http://localhost:8000/v1", "write|'openai:<url>' for OpenAI's routes"),
        ("https://api.example.com", "'tei:<url>' for text-embeddings-inference"),
        ("vllm:http://localhost:8000", "it has OpenAI's routes: write 'openai:<url>'"),
        ("lm-studio", "write 'openai:<url>'"),
        ("sentence-transformers", "a model in this process is 'local'"),
        ("huggingface", "the hosted providers are 'hf'"),
    ],
)
def test_what_is_taken_for_a_kind_is_answered_by_what_to_write(written: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        Gateway("m", [written])


@pytest.mark.parametrize("kind", ["tei", "openai", "endpoint"])
def test_a_server_kind_without_a_url_says_how_to_write_it(kind: str) -> None:
    with pytest.raises(ConfigError, match="needs its URL, such as"):
        Gateway("m", [kind])


@pytest.mark.parametrize("kind", ["local", "hf", "ollama"])
def test_a_kind_that_needs_a_model_says_so(kind: str) -> None:
    with pytest.raises(ConfigError, match="needs a model"):
        Gateway(targets=[kind])


def test_a_target_without_a_model_inherits_the_chains() -> None:
    gateway = Gateway("org/model", ["local", "tei:http://tei"], revision="v1")
    assert [(target.model, target.revision) for target in gateway.targets] == [("org/model", "v1"), ("org/model", "v1")]


@given(
    st.builds(
        Target,
        kind=st.sampled_from(["local", "tei", "openai"]),
        model=st.none() | st.from_regex(r"[a-z]{1,8}/[a-z0-9.-]{1,12}", fullmatch=True),
        url=st.none() | st.sampled_from(["http://h:1", "https://example.org/x"]),
        revision=st.none() | st.sampled_from(["main", "v1.0", "0123456789abcdef"]),
        options=st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=5), max_size=2),
        space=st.none() | st.builds(VectorSpace, model=st.just("m"), dimension=st.none() | st.integers(1, 99)),
    )
)
def test_to_dict_of_and_pickle_bring_a_target_back(target: Target) -> None:
    assert Target.of(target.to_dict()) == target
    assert pickle.loads(pickle.dumps(target)) == target


# Vector spaces, as far as they are declared.


def test_targets_of_different_models_are_refused_when_the_chain_is_built() -> None:
    with pytest.raises(SpaceMismatch) as caught:
        Gateway("org/a", ["local", "local:org/b"])
    for part in ("'local:org/a'", "'local:org/b'", "model: 'org/a' and 'org/b'", "Ways out"):
        assert part in str(caught.value)


def test_the_hash_embedder_is_never_mixed_with_a_model() -> None:
    with pytest.raises(SpaceMismatch, match="feature-hashing"):
        Gateway("all-MiniLM-L6-v2", ["local", "hash:384"])


def test_one_model_under_its_two_names_is_one_space() -> None:
    Gateway("all-MiniLM-L6-v2", ["local", "ollama:all-minilm", "local:sentence-transformers/all-MiniLM-L6-v2"])
    Gateway("all-MiniLM-L6-v2", ["local", "ollama:all-minilm:22m", "ollama:all-minilm:latest"])
    Gateway("nomic-ai/nomic-embed-text-v1.5", ["ollama:nomic-embed-text:v1.5", "ollama:nomic-embed-text", "ollama"])
    assert canonical("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert canonical("org/all-MiniLM-L6-v2") == "org/all-MiniLM-L6-v2"


def test_a_declared_space_joins_what_names_keep_apart() -> None:
    Gateway("org/a", ["local", Target("openai", url="http://h", model="served-as-b", space=VectorSpace("org/a"))])


def test_another_size_behind_a_tag_is_another_space() -> None:
    with pytest.raises(SpaceMismatch, match="all-MiniLM-L12-v2"):
        Gateway("all-MiniLM-L6-v2", ["local", "ollama:all-minilm:33m"])
    with pytest.raises(SpaceMismatch, match="'me/mine:v1' and 'me/mine:v2'"):
        Gateway(targets=["ollama:me/mine:v1", "ollama:me/mine:v2"])


def test_two_revisions_of_a_model_are_two_spaces() -> None:
    with pytest.raises(SpaceMismatch, match="revision: 'v1' and 'v2'"):
        Gateway(targets=["local:org/a@v1", "local:org/a@v2"])


def test_a_space_lists_its_differences_with_reasons_and_ignores_what_nobody_knows() -> None:
    left = VectorSpace("m", dimension=384, pooling="mean", normalized=True)
    right = VectorSpace("m", pooling="cls", normalized=None, query_prompt="query: ")
    assert [str(difference) for difference in left.differences(right)] == [
        "pooling: 'mean' and 'cls' (the same tokens pooled another way give another vector)"
    ]
    assert left.merged(VectorSpace("m", query_prompt="q")).query_prompt == "q"


def test_the_id_of_a_space_changes_with_every_field_and_with_nothing_else() -> None:
    base = VectorSpace("org/m", dimension=384)
    others = [
        VectorSpace("org/n", dimension=384),
        VectorSpace("org/m", dimension=256),
        VectorSpace("org/m", dimension=384, normalized=True),
        VectorSpace("org/m", dimension=384, query_prompt=""),
    ]
    assert len({space.id for space in [base, *others]}) == 5
    assert VectorSpace.from_dict(base.to_dict()).id == base.id
    assert base.id.startswith("org/m#")
