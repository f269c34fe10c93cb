"""The registry on the command line: what there is, where it came from, what is damaged, and what it is called."""

from pathlib import Path

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, trained
from tests.unit.registry.conftest import origin, safetensors

from headway.objectstore.folder import FolderStore
from headway.registry import RegisteredModel, Version
from headway.runs import keys


@pytest.fixture
def versions(store: FolderStore, tmp_path: Path) -> list[Version]:
    """A model of two versions, of which the first is stable, and another model of one."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(bytes(100)))
    (folder / "config.json").write_text("{}\n")
    coder = RegisteredModel(store, "coder")
    made = [coder.publish(folder, origin(tokens), dtype="float32", held_out=2.5) for tokens in (1000, 2000)]
    coder.alias("stable", 1)
    RegisteredModel(store, "poet").publish(folder, origin(3000), dtype="bfloat16")
    return made


def flip(store: FolderStore, version: Version, name: str) -> None:
    """Change the last byte of a file of a version."""
    key = keys.folder(version.manifest) + name
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, [data])


def test_all_models_are_listed(headway: Headway, versions: list[Version]) -> None:
    """One line a version: what it is called, its run and position, its loss, size and age."""
    answer = headway("models")
    assert answer.code == 0
    header, one, two, three = answer.out.splitlines()
    assert header.split() == ["version", "aliases", "run", "tokens", "held-out", "size", "published"]
    assert one.split()[:5] == ["coder@1", "stable", "tale", "1,000", "2.500"]
    assert two.split()[:5] == ["coder@2", "-", "tale", "2,000", "2.500"]
    assert three.split()[:5] == ["poet@1", "-", "tale", "3,000", "-"]
    document = headway("models", "--json").document
    assert [(row["model"], row["version"], row["aliases"]) for row in document["models"]] == [
        ("coder", 1, ["stable"]),
        ("coder", 2, []),
        ("poet", 1, []),
    ]
    assert document["models"][0]["origin"] == origin(1000).model_dump()
    assert document["models"][0]["sha256"] == versions[0].sha256
    assert document["findings"] == []


def test_one_model_is_listed_with_where_it_came_from(headway: Headway, versions: list[Version]) -> None:
    """The digests of checkpoint, recipe and data, and the code; of one version, if one is asked about."""
    shown = headway("models", "coder").out.splitlines()
    assert len(shown) == 1 + len(versions)
    assert shown[0].split()[-5:] == ["dtype", "checkpoint", "recipe", "data", "code"]
    assert "000000000000" in shown[1]
    for reference, number in (("coder@2", 2), ("coder@stable", 1)):
        assert [row["version"] for row in headway("models", reference, "--json").document["models"]] == [number]


def test_nothing_published_is_nothing_listed(headway: Headway, store: FolderStore) -> None:
    """No models: 0, and how to make one; a model that is not there: 2, and what there is."""
    answer = headway("models")
    assert (answer.code, answer.out) == (0, "")
    assert f"no models in {store.url} yet; make one: headway publish RUN --as NAME" in answer.err
    assert headway("models", "--json").document["models"] == []
    answer = headway("models", "coder")
    assert (answer.code, "no model coder in" in answer.err) == (2, True)


def test_verify_reads_every_byte(headway: Headway, store: FolderStore, versions: list[Version]) -> None:
    """Sound: 0. A flipped byte: 1, with version and file, which a look without --verify does not see."""
    assert headway("models", "--verify").code == 0
    flip(store, versions[1], "model.safetensors")
    assert headway("models").code == 0
    answer = headway("models", "--verify")
    assert answer.code == 1
    assert "headway: coder@2: model.safetensors is not what was published" in answer.err
    assert headway("models", "poet", "--verify").code == 0
    document = headway("models", "coder", "--verify", "--json").document
    assert [bool(row["problem"]) for row in document["models"]] == [False, True]


def test_a_damaged_manifest_is_shown_and_the_others_are_listed(
    headway: Headway, store: FolderStore, versions: list[Version]
) -> None:
    """A version of which nothing is known but what the journal says; so is a damaged entry of the journal."""
    flip(store, versions[0], "manifest.json")
    answer = headway("models")
    assert answer.code == 0
    assert answer.out.splitlines()[1].split()[:3] == ["coder@1", "stable", "damaged"]
    assert "manifest.json is not the one that the model's journal vouches for" in answer.err
    store.put(keys.journal_entry(keys.model_journal("coder"), 3), [b"rubbish"])
    assert "headway: model coder: journal entry 3 is not readable as one" in headway("models").err


def test_an_alias_is_moved(headway: Headway, store: FolderStore, versions: list[Version]) -> None:
    """To a version by its number, or by what another alias means; what it was before is said."""
    assert headway("alias", "coder@2", "candidate").out == "coder@candidate is coder@2\n"
    assert headway("alias", "coder@candidate", "stable").out == "coder@stable is coder@2, before coder@1\n"
    assert headway("alias", "coder@2", "stable").out == "coder@stable is coder@2\n"
    quiet = headway("alias", "coder@2", "stable", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert headway("alias", "coder@1", "stable", "--json").document == {
        "model": "coder",
        "alias": "stable",
        "version": 1,
        "before": 2,
    }
    assert RegisteredModel(store, "coder").aliases() == {"candidate": 2, "stable": versions[0].number}
    assert headway("alias", "coder@9", "stable").code == 2
    assert headway("alias", "coder@1", "Stable").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--as", "a/b"], "'a/b' is no name of a model"),
        (["--as", "coder", "--alias", "Stable"], "'Stable' is no alias"),
        (["--as", "coder", "--tokens", "5"], "no checkpoint at 5 tokens"),
        ([], "--as"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_exported(
    headway: Headway, store: FolderStore, words: list[str], said: str
) -> None:
    """A name, an alias or a position that cannot be: 2, and nothing is written."""
    trained(Story(store, "tale"))
    answer = headway("publish", "tale", *words)
    assert (answer.code, said in answer.err) == (2, True)
    assert not list(store.list("models/"))


def test_a_store_that_ignores_conditions_takes_no_versions(
    headway: Headway, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two publishers could overwrite each other's entries there: 1, and no way around it is offered."""
    trained(Story(store, "tale"))
    monkeypatch.setattr(FolderStore, "create", lambda self, key, data: self.put(key, [data]))
    answer = headway("publish", "tale", "--as", "coder")
    assert (answer.code, "ignores the condition of a create-only write" in answer.err) == (1, True)
    assert "--allow-unfenced" not in answer.err
