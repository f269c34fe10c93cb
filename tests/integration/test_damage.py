"""Damage to stored bytes is found, named by `verify`, and `train` falls back by itself to what is sound."""

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.runs.entries import decode, encode
from tests.integration.training import Place

PAGE = 4096


@pytest.fixture(scope="module")
def interrupted(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run on two ranks that was stopped twice, so that it has checkpoints of two attempts."""
    place = Place(built / "tiny.yaml", tmp_path_factory.mktemp("interrupted"))
    for steps in (10, 10):
        training = place.start("run", ranks=2)
        assert training.await_event("step.done", steps), training.messages
        training.send(signal.SIGTERM, training.family()[:1])
        assert training.wait() == 75
    return place


@pytest.fixture
def copy(interrupted: Place, tmp_path: Path) -> Place:
    """A copy of it that may be damaged."""
    shutil.copytree(interrupted.store, tmp_path / "store")
    return Place(interrupted.recipe, tmp_path / "store")


def newest(place: Place, back: int = 0) -> Path:
    """The folder of the newest checkpoint, or of one `back` before it."""
    return (place.store / place.history("run").commits[-1 - back].manifest).parent


def shards(folder: Path) -> list[Path]:
    """The shards of a checkpoint."""
    return sorted(folder.glob("*.safetensors"))


def flip(path: Path, dice: random.Random) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def zero_page(path: Path, dice: random.Random) -> None:
    """Zero a page that is not zero already."""
    data = bytearray(path.read_bytes())
    pages = [at for at in range(0, len(data), PAGE) if any(data[at : at + PAGE])]
    at = dice.choice(pages)
    data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
    path.write_bytes(data)


def cut_short(path: Path, dice: random.Random) -> None:
    """Cut off the end."""
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])


def lengthen(path: Path, dice: random.Random) -> None:
    """Append bytes."""
    path.write_bytes(path.read_bytes() + dice.randbytes(dice.randint(1, 100)))


def remove(path: Path, dice: random.Random) -> None:  # noqa: ARG001 - one of several
    """Delete it."""
    path.unlink()


def flipped_shard(place: Place, dice: random.Random) -> str:
    """One bit of a shard."""
    flip(victim := dice.choice(shards(newest(place))), dice)
    return victim.name


def zeroed_page(place: Place, dice: random.Random) -> str:
    """One page of a shard."""
    zero_page(victim := dice.choice(shards(newest(place))), dice)
    return victim.name


def truncated_shard(place: Place, dice: random.Random) -> str:
    """A shard that ends early."""
    cut_short(victim := dice.choice(shards(newest(place))), dice)
    return victim.name


def lengthened_shard(place: Place, dice: random.Random) -> str:
    """A shard with bytes after its end."""
    lengthen(victim := dice.choice(shards(newest(place))), dice)
    return victim.name


def missing_shard(place: Place, dice: random.Random) -> str:
    """A shard that is gone."""
    remove(victim := dice.choice(shards(newest(place))), dice)
    return victim.name


def swapped_shards(place: Place, dice: random.Random) -> str:  # noqa: ARG001 - there are two
    """Two shards that changed places."""
    first, second = shards(newest(place))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two), second.write_bytes(one)
    return first.name


def shard_of_another_attempt(place: Place, dice: random.Random) -> str:
    """A sound shard, of the same place, from an earlier attempt's checkpoint."""
    index = dice.randrange(2)
    shutil.copy(shards(newest(place, back=2))[index], shards(newest(place))[index])
    return shards(newest(place))[index].name


def edited_manifest(place: Place, dice: random.Random) -> str:
    """A manifest in which one number is another one."""
    path = newest(place) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[dice.choice(["tokens", "attempt", "world_size"])] += 1
    path.write_text(json.dumps(manifest, indent=1))
    return "manifest.json"


def edited_entry(place: Place, dice: random.Random) -> str:  # noqa: ARG001 - the newest commit
    """The newest commit's journal entry, edited without its checksum."""
    seq = place.history("run").commits[-1].seq
    path = place.store / f"runs/run/journal/{seq:08d}.json"
    path.write_text(path.read_text().replace('"tokens": ', '"tokens": 1'))
    return f"journal entry {seq}"


def rewritten_entry(place: Place, dice: random.Random) -> str:  # noqa: ARG001 - the newest commit
    """The newest commit's journal entry, edited together with its checksum."""
    seq = place.history("run").commits[-1].seq
    path = place.store / f"runs/run/journal/{seq:08d}.json"
    path.write_bytes(encode(decode(path.read_bytes(), seq).model_copy(update={"tokens": 1})))
    return f"journal entry {seq}"


def damaged_recipe(place: Place, dice: random.Random) -> str:  # noqa: ARG001 - a meaning that parses
    """A frozen recipe that says something else."""
    path = place.store / "runs/run/recipe.yaml"
    path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
    return "recipe.yaml"


DAMAGES: list[Callable[[Place, random.Random], str]] = [
    flipped_shard,
    zeroed_page,
    truncated_shard,
    lengthened_shard,
    missing_shard,
    swapped_shards,
    shard_of_another_attempt,
    edited_manifest,
    edited_entry,
    rewritten_entry,
]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*DAMAGES, damaged_recipe], ids=lambda damage: damage.__name__)
def test_verify_names_every_damage(copy: Place, damage: Callable[[Place, random.Random], str]) -> None:
    """Twenty seeded injections of each kind: each is found, by the name of the object that was damaged."""
    sound = copy.store.parent / "sound"
    shutil.copytree(copy.store, sound)
    assert copy.findings("run") == []
    for seed in range(20):
        shutil.rmtree(copy.store)
        shutil.copytree(sound, copy.store)
        name = damage(copy, random.Random(seed))
        assert any(name in finding for finding in copy.findings("run")), (seed, name, copy.findings("run"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_train_falls_back_by_itself(copy: Place, unkilled: str, damage: Callable[[Place, random.Random], str]) -> None:
    """With the newest checkpoint damaged, the run goes on from the one before, and ends with the same bits."""
    before = copy.history("run").commits
    damage(copy, random.Random(0))
    training = copy.train("run")
    assert training.process.returncode == 0, training.messages
    restored = [event["tokens"] for event in training.events if event["event"] == "checkpoint.restored"]
    assert restored == [before[-2].tokens]
    assert copy.fingerprint("run") == unkilled


@pytest.mark.slow
def test_with_nothing_sound_left_training_begins_again(copy: Place, unkilled: str) -> None:
    """When every checkpoint is damaged the run says so, begins at zero tokens, and still ends with the same bits."""
    for commit in copy.history("run").commits:
        flip(shards((copy.store / commit.manifest).parent)[0], random.Random(1))
    training = copy.train("run")
    assert training.process.returncode == 0, training.messages
    assert training.await_event("restore.nothing_sound")
    assert copy.fingerprint("run") == unkilled


@pytest.mark.slow
def test_a_damaged_recipe_stops_the_run_and_says_so(copy: Place) -> None:
    """A run whose frozen recipe was changed is not trained on."""
    damaged_recipe(copy, random.Random(0))
    training = copy.train("run")
    assert training.process.returncode == 1
    assert "recipe.yaml: is not the recipe that this run was started with" in training.messages[-1]
