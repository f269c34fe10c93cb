"""What is printed is text and strict JSON, whatever a store holds."""

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.text import Text
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, said, step, trained

from headway.cli import screen
from headway.errors import UsageError
from headway.events.training_events import AttemptEnded
from headway.objectstore.folder import FolderStore
from headway.output_text import one_line, printable, strict_json
from headway.registry import RegisteredModel
from headway.runs import keys

REASONS = [
    "cannot open [/data/x]",
    "[enforce fail at alloc_cpu.cpp:127] [bold]out of memory[/bold] [/]",
    "a\x1b[2J\x1b]52;c;ZWNobw==\x07b\x9b31mc\rd\x08e\x00f\u202eg",
    "first line\nheadway: second line",
    "an emoji's name :smile: and ünïcode",
]
ESCAPES = {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("words", ["status tale", "runs", "logs tale", "models", "keys ls", "store ls", "ledger tale"])
def test_words_of_others_are_printed_as_they_are(
    headway: Headway, store: FolderStore, tmp_path: Path, reason: str, words: str
) -> None:
    """Brackets are no markup, and a control character is printed as its escape: on a line, in a table, in an error."""
    story = Story(store, "tale")
    story.claim(100)
    story.say(step(1000), {"event": reason, "phase": reason, "rank": reason, "tokens": reason, "x": reason})
    story.end(110, "failed", 1000, reason)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{"tenant": reason, "sha256": "0" * 64, "created": 1.0}]}))
    answer = headway(*words.split())
    assert answer.code == 0
    assert not ESCAPES & {*answer.out, *answer.err}
    answer.out.encode()
    if words in {"status tale", "logs tale", "keys ls"}:
        assert one_line(reason) in answer.out


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_printable_is_changed_and_nothing_else_is_left(text: str) -> None:
    """A text keeps its lines and tabs; a line is one line, and UTF-8 holds both."""
    assert len(one_line(text).splitlines()) <= 1
    for shown in (one_line(text), printable(text)):
        assert not ESCAPES & {*shown}
        shown.encode()
        assert printable(shown) == shown
    assert [one_line(line) for line in text.split("\n")] == [one_line(line) for line in printable(text).split("\n")]


def test_a_group_of_texts_and_tables_is_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal as in a pipe, also where a view hands a bare text or rich's own over."""

    class Terminal(io.StringIO):
        """A terminal."""

        def isatty(self) -> bool:
            """Always."""
            return True

    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stdout", stream)
        parts = Group("bare [/x] \x1b[2J", Text("text [/y] \x1b]0;t\x07"), screen.facts([("fact", "[/z] \x9b2J")]))
        screen.result({}, parts, as_json=False)
        shown = stream.getvalue()
        assert all(name in shown for name in ("bare [/x] \\x1b[2J", "text [/y] \\x1b]0;t", "[/z] \\x9b2J"))
        assert "\x1b[2J" not in shown
        assert "\x1b]" not in shown


NUMBERS = (0, 1, -1, 0.5, math.nan, math.inf, -math.inf, 1e300, -1e300, 1.7e12, 10**400, -(10**400), 2**63)


@pytest.mark.parametrize("show", [screen.size, screen.span, screen.ago, screen.clock])
def test_every_number_has_a_form(show: Callable[[float], str]) -> None:
    """One that means nothing, such as a time in milliseconds or NaN bytes, is a question mark."""
    for number in NUMBERS:
        assert 0 < len(show(number)) < 30
    assert [show(number) for number in (math.nan, math.inf, 1e300, 10**400)] == ["?"] * 4


def parse(text: str) -> Any:
    """The JSON document of a text. NaN is none."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(text, parse_constant=refuse)
    json.dumps(document, ensure_ascii=False).encode()
    return document


def test_json_is_strict_whatever_a_number_or_a_text_was() -> None:
    """NaN and infinities are null, half a surrogate pair is no text, at any depth."""
    document = {"a": [math.nan, (1.5, -math.inf)], "b\ud800": {"c": "\udc00ü"}, "d": None, "e": True, "f": 10**30}
    assert parse(strict_json(document)) == {
        "a": [None, [1.5, None]],
        "b\ufffd": {"c": "\ufffdü"},
        "d": None,
        "e": True,
        "f": 10**30,
    }


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_every_document_and_line_is_strict_json_whatever_a_loss_was(
    headway: Headway, store: FolderStore, loss: float
) -> None:
    """Also the lines of a log that was stored with NaN."""
    story = trained(Story(store, "tale"))
    story.say(step(11000, loss), said(AttemptEnded(outcome="done", reason="budget\ud800"), tokens=11000))
    for words in ("status tale", "runs", "logs tale", "ledger tale", "goodput tale"):
        answer = headway(*words.split(), "--json")
        assert answer.code == 0
        for document in answer.out.splitlines() if words.startswith("logs") else [answer.out]:
            parse(document)
    assert '"loss": null' in headway("logs", "tale", "--json").out


def test_an_error_is_printed_as_text(headway: Headway, store: FolderStore) -> None:
    """The name of a foreign thing in an error moves no cursor."""
    model = RegisteredModel(store, "coder")
    store.put(keys.hashlog_entry(model.journal.prefix, 1), [b"\x1b[2J"])
    for name in ("\x1b[2Jx", "[/x]"):
        answer = headway("status", name)
        assert answer.code != 0
        assert "\x1b" not in answer.err
        assert one_line(name) in answer.err or repr(name) in answer.err


@pytest.mark.parametrize("as_json", [True, False])
def test_a_result_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> None:
    """It says so in a line; what could not be written is not tried again at the exit."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(UsageError, match="standard output cannot be written: No space left on device"):
            screen.result({}, "text", as_json=as_json)
        sys.stdout.flush()
        with pytest.raises(OSError, match="No space"):  # the file still has it
            full.close()
