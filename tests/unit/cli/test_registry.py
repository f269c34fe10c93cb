"""The registry on the command line: versions, their origin, their damage and their aliases."""

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
    """A model with two versions, the first of them stable, and a model with one."""
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
    """Flips the last byte of a file of a version."""
    key = keys.folder(version.manifest) + name
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, [data])


def test_all_models_are_listed(headway: Headway, versions: list[Version]) -> None:
    """Each version has a line with its aliases, run, tokens, loss, size and age."""
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
    """The list of one model adds the digests of checkpoint, recipe and data, and the code."""
    shown = headway("models", "coder").out.splitlines()
    assert len(shown) == 1 + len(versions)
    assert shown[0].split()[-5:] == ["dtype", "checkpoint", "recipe", "data", "code"]
    assert "000000000000" in shown[1]
    for reference, number in (("coder@2", 2), ("coder@stable", 1)):
        assert [row["version"] for row in headway("models", reference, "--json").document["models"]] == [number]


def test_nothing_published_is_nothing_listed(headway: Headway, store: FolderStore) -> None:
    """Without models the command explains how to create one; an unknown model exits with 2."""
    answer = headway("models")
    assert (answer.code, answer.out) == (0, "")
    assert f"no models in {store.url} yet; create one: headway publish RUN --as NAME" in answer.err
    assert headway("models", "--json").document["models"] == []
    answer = headway("models", "coder")
    assert (answer.code, "no model coder in" in answer.err) == (2, True)


def test_verify_reads_every_byte(headway: Headway, store: FolderStore, versions: list[Version]) -> None:
    """`--verify` finds a flipped byte that the plain list does not see, and exits with 1."""
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
    """A damaged manifest or journal entry is reported, and the other versions are listed."""
    flip(store, versions[0], "manifest.json")
    answer = headway("models")
    assert answer.code == 0
    assert answer.out.splitlines()[1].split()[:3] == ["coder@1", "stable", "damaged"]
    assert "manifest.json is not the one whose SHA-256 is in the model's journal" in answer.err
    store.put(keys.hashlog_entry(keys.model_journal("coder"), 3), [b"rubbish"])
    assert "headway: model coder: journal entry 3 is unreadable" in headway("models").err


def test_a_folder_with_another_name_is_a_finding(headway: Headway, store: FolderStore, versions: list[Version]) -> None:
    """A copy that somebody made beside a model hides no model."""
    store.put("models/coder (copy)/journal/00000001.json", [b"{}"])
    answer = headway("models")
    assert (answer.code, len(answer.out.splitlines())) == (0, 1 + len(versions) + 1)
    assert "models/coder (copy): is not a name for a model" in answer.err
    document = headway("models", "--json").document
    assert document["findings"] == ["models/coder (copy): is not a name for a model"]
    assert headway("models", "--verify").code == 1
    assert "its models: coder, poet" in headway("models", "other@1").err


def test_what_does_not_fit_in_a_model_is_a_finding(
    headway: Headway, store: FolderStore, versions: list[Version], tmp_path: Path
) -> None:
    """A journal file that no entry leads to, and a link: the versions are listed all the same."""
    store.put("models/coder/journal/20261126.json", [b"{}"])
    (store.root / "models/coder/notes").symlink_to(tmp_path)
    answer = headway("models")
    assert (answer.code, len(answer.out.splitlines())) == (0, 1 + len(versions) + 1)
    findings = [
        "models/coder/journal/20261126.json: no entry leads to it",
        "models/coder/notes: is a link, and a store has none",
    ]
    assert headway("models", "--json").document["findings"] == findings
    assert all(f"headway: {finding}" in answer.err for finding in findings)


def test_an_alias_is_moved(headway: Headway, store: FolderStore, versions: list[Version]) -> None:
    """An alias moves to a version given by number or alias; the output names the version before."""
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
    ("words", "complaint"),
    [
        (["--as", "a/b"], "'a/b' is not a name for a model"),
        (["--as", "coder", "--alias", "Stable"], "'Stable' is not an alias"),
        (["--as", "coder", "--tokens", "5"], "no checkpoint at 5 tokens"),
        ([], "--as"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_exported(
    headway: Headway, store: FolderStore, words: list[str], complaint: str
) -> None:
    """An invalid name, alias or position exits with 2 and writes nothing."""
    trained(Story(store, "tale"))
    answer = headway("publish", "tale", *words)
    assert (answer.code, complaint in answer.err) == (2, True)
    assert not list(store.list("models/"))


def test_a_store_that_ignores_conditions_takes_no_versions(
    headway: Headway, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing to a store without conditional writes exits with 1, and no option overrides that."""
    trained(Story(store, "tale"))
    monkeypatch.setattr(FolderStore, "create", lambda self, key, data: self.put(key, [data]))
    answer = headway("publish", "tale", "--as", "coder")
    assert (answer.code, "ignores the condition of a create-only write" in answer.err) == (1, True)
    assert "--allow-unfenced" not in answer.err
