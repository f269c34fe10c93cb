"""What MODEL means on the command line: a version of the registry, a run, or a directory."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from headway import registry
from headway.cli.options import choose_commit, choose_run, choose_store
from headway.cli.screen import bar
from headway.errors import UsageError

RUN = "run:"
"""What a MODEL that is a run begins with."""
Named = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model of the registry, NAME[@VERSION or @ALIAS]; run:RUN[@TOKENS]; or a directory."
    ),
]


@dataclass(frozen=True)
class ModelChoice:
    """A model on this machine."""

    name: str
    version: str
    """Its number in the registry, or the tokens of a run; empty for a directory."""
    folder: Path
    """A Hugging Face directory; verified, where it comes from the registry or from a run."""
    manifest: registry.VersionManifest | None = None
    """If it comes from the registry."""


def choose_model(model: str, store: str | None, stack: ExitStack, *, quiet: bool) -> ModelChoice:
    """The model that is meant; what has to be made for it lies there until `stack` is closed.

    Raises:
        UsageError: there is no such model; says what there is.
        DamageError: it is not what was published.
    """
    if model.startswith(RUN):
        return _exported(model.removeprefix(RUN), store, stack, quiet=quiet)
    folder = Path(model)
    if (folder / "config.json").is_file():
        return ModelChoice(folder.absolute().name, "", folder)
    if folder.is_dir():
        raise UsageError(f"{model} is no Hugging Face directory: it has no config.json; headway export RUN makes one")
    found, version = registry.find(choose_store(store), model)
    return ModelChoice(found.name, str(version.number), found.fetch(version), found.manifest(version))


def _exported(reference: str, store: str | None, stack: ExitStack, *, quiet: bool) -> ModelChoice:
    """A run as it stands, or at so many tokens."""
    name, _, tokens = reference.partition("@")
    if tokens and not tokens.isdecimal():
        raise UsageError(f"{RUN}{reference}: after the @ comes a number of tokens, as headway status {name} shows them")
    run = choose_run(name, store)
    commit = choose_commit(run, int(tokens) if tokens else None)

    from headway import export
    from headway.checkpoint.reader import StoredCheckpoint

    checkpoint = StoredCheckpoint(run.store, commit)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="headway-model-"))) / name
    with bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=export.size(checkpoint), note="")
        export.write_checkpoint(
            run, checkpoint, folder, dtype="bfloat16", advance=lambda done: progress.advance(task, done)
        )
    return ModelChoice(name, str(commit.tokens), folder)
