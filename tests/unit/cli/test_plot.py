"""The figure of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import BATCH, Story, restored, said, step, steps, trained
from tests.unit.full_disk import short_files

from headway.events.log_line import LogLine
from headway.events.training_events import AttemptClaimed, CheckpointRestored, EvaluationDone
from headway.objectstore.folder import FolderStore
from headway.reports.curve import Curve, newest_losses, read_curve
from headway.runs.run_log import opening_lines

PNG = b"\x89PNG\r\n"


def curve(*records: Mapping[str, Any]) -> Curve:
    """The curve of a log of these lines."""
    epoch = {"timestamp": "1970-01-01T00:00:00Z"}
    return read_curve(line for record in records if (line := LogLine.parse({**epoch, **record})))


def test_what_was_trained_again_is_drawn_once() -> None:
    """The later attempt's steps replace those that the earlier attempt lost, including those not yet repeated."""
    first = [{**each, "attempt": 1} for each in (*steps(1000, 6000, loss=3.0),)]
    first.append(said(EvaluationDone(held_out=9.0), attempt=1, tokens=6000))
    second = [
        {**restored(3000), "attempt": 4},
        *({**each, "attempt": 4} for each in steps(4000, 5000, loss=2.0)),
    ]
    drawn = curve(*first, *second)
    assert [(p.tokens, p.loss) for p in drawn.points] == [(1000, 3), (2000, 3), (3000, 3), (4000, 2), (5000, 2)]
    assert drawn.held_out == {}
    assert drawn.tokens_reached == {1: 6000, 4: 5000}


def test_beginning_again_forgets_everything() -> None:
    """The curve of an attempt that restored nothing starts at the beginning."""
    events = [{**each, "attempt": 1} for each in steps(1000, 3000)] + [{**step(1000, 5.0), "attempt": 2}]
    assert [(p.tokens, p.loss) for p in curve(*events).points] == [(1000, 5.0)]


def test_what_a_roll_back_skips_is_not_drawn() -> None:
    """Steps that were rolled back and then skipped leave a gap."""
    first = [{**each, "attempt": 1} for each in steps(1000, 5000)]
    second = [{**restored(2000), "attempt": 4}, {**step(6000), "attempt": 4}]
    assert [p.tokens for p in curve(*first, *second).points] == [1000, 2000, 6000]


def test_late_and_early_words_are_found_without_the_rest(store: FolderStore) -> None:
    """The newest losses come from the end of a log, an attempt's opening events from its beginning."""
    story = trained(Story(store, "tale"))
    assert newest_losses(store, "tale") == (1.5, 1.75)
    assert [type(line.event) for line in opening_lines(store, "tale", 7)] == [AttemptClaimed, CheckpointRestored]
    assert list(opening_lines(store, story.run, 99)) == []


@pytest.mark.parametrize(("name", "begins"), [("tale.png", PNG), ("x.pdf", b"%PDF"), ("x.svg", b"<?xml")])
def test_a_picture_is_written(headway: Headway, store: FolderStore, name: str, begins: bytes) -> None:
    """The default file is RUN.png; --to selects any of three formats."""
    trained(Story(store, "tale"))
    answer = headway("plot", "tale", "--json", *(["--to", name] if name != "tale.png" else []))
    assert answer.document == {"run": "tale", "file": name, "points": 10, "held_out": 1, "attempts": 5}
    assert Path(name).read_bytes().startswith(begins)


def test_a_full_disk_keeps_the_picture_of_before(headway: Headway, store: FolderStore) -> None:
    """The message names the file, and no part of another is left."""
    trained(Story(store, "tale"))
    Path("x.svg").write_text("old")
    before = sorted(Path().iterdir())
    with short_files(1000):
        answer = headway("plot", "tale", "--to", "x.svg")
    assert (answer.code, answer.err) == (1, "headway: x.svg: cannot be written: File too large\n")
    assert Path("x.svg").read_text() == "old"
    assert sorted(Path().iterdir()) == before


def test_a_picture_shows_every_way_to_stop(headway: Headway, store: FolderStore) -> None:
    """The legend has preemptions, kills, failures and roll-backs with their numbers, and the tokens trained again."""
    story = trained(Story(store, "tale"))
    headway("plot", story.run, "--to", "x.svg")
    text = Path("x.svg").read_text()
    for word in ("preempted", "killed ×2", "failed", "trained again", "held-out", "10,000", "tokens/s", "goodput"):
        assert word in text
    assert "rolled back" not in text


def test_a_picture_leaves_out_numbers_that_nobody_measured(headway: Headway, store: FolderStore) -> None:
    """A log may hold any number; the steps beside it are drawn."""
    story = Story(store, "tale")
    story.claim(100)
    story.say(*steps(1000, 3000), step(4000, -1.7e308), step(5000, 1.7e308))
    answer = headway("plot", "tale", "--to", "x.svg", "--json")
    assert answer.code == 0, answer.err
    assert answer.document["points"] == 5


def test_a_picture_of_many_attempts_can_be_drawn(headway: Headway, store: FolderStore) -> None:
    """A run with sixty kills is drawn."""
    story = Story(store, "often")
    for number in range(60):
        began = 100.0 * number
        story.claim(began, lost_at=began - 20 if number else None)
        story.say(*steps(number * BATCH + BATCH, number * BATCH + 3 * BATCH))
        story.commit(began + 50, (number + 1) * BATCH)
        story.ledger(began, began + 50, {"startup": 10.0, "step": 40.0})
    answer = headway("plot", "often", "--json")
    assert answer.document["attempts"] == 60
    assert Path("often.png").read_bytes().startswith(PNG)


def test_what_cannot_be_drawn_is_said(headway: Headway, store: FolderStore) -> None:
    """Without steps, with an unknown suffix or a missing folder there is a message, no figure and no traceback."""
    story = Story(store, "tale")
    assert headway("plot", "tale").code == 2
    story.claim(100)
    story.say(*steps(1000, 2000))
    answer = headway("plot", "tale", "--to", "tale.gif")
    assert (answer.code, ".png, .pdf, .svg" in answer.err) == (2, True)
    answer = headway("plot", "tale", "--to", "nowhere/tale.png")
    assert (answer.code, "cannot be written" in answer.err) == (1, True)
