"""The command lines that help, README and documents show."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperGroup

from headway.cli.commands import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/*.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
HELP = re.compile(r"\*\*(.+?)\*\*", re.S)
PROMPT = "$ "
"""Starts the commands of a `console` block; the other lines are output."""
SEPARATORS = {"&&", ";", "|", ">", "<"}


@dataclass(frozen=True)
class Example:
    """A command of `headway` that a text shows."""

    place: str
    """The page, or `headway COMMAND --help`."""
    words: tuple[str, ...]
    """Words after `headway`."""

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def help_examples() -> list[Example]:
    """Examples in the help of each command, in the order of the help."""
    examples: list[Example] = []
    for name, command in commands().items():
        for line in HELP.findall((command.help or "").partition("Example: ")[2]):
            examples += _examples(f"headway {name} --help", " ".join(line.split()))
    return examples


def page_examples() -> list[Example]:
    """Examples in the blocks of README and documents that are marked `bash` or `console`."""
    examples: list[Example] = []
    for path in sorted(path for page in PAGES for path in ROOT.glob(page)):
        for language, block in BLOCK.findall(path.read_text(encoding="utf-8")):
            if language in {"console", "bash"}:
                for line in block.replace("\\\n", " ").splitlines():
                    if language != "console" or line.startswith(PROMPT):
                        examples += _examples(path.relative_to(ROOT).as_posix(), line.removeprefix(PROMPT))
    return examples


def commands() -> dict[str, Any]:
    """All commands by their words, such as `data build`."""

    def below(group: TyperGroup, before: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from below(command, f"{before}{name} ")
            else:
                yield f"{before}{name}", command

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(below(group, ""))


def _examples(place: str, line: str) -> Iterator[Example]:
    """The `headway` commands of a line of shell; variables before a command are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words[:1] == ["headway"]:
            yield Example(place, tuple(words[1:]))
        words = []
