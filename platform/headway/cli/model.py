"""The MODEL argument: a version in the registry, a run, or a directory."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from headway import registry
from headway.cli.options import choose_commit, choose_run, choose_store
from headway.cli.screen import bar
from headway.errors import UsageError
from headway.localfiles import local_path
from headway.registry.model_folder import check_model_folder
from headway.temporary_folder import temporary_folder

RUN = "run:"
"""Prefix of a MODEL that is a run."""
Named = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="NAME[@VERSION or @ALIAS] in the registry, run:RUN[@TOKENS], or a directory."),
]


@dataclass(frozen=True)
class ModelChoice:
    """A model on this machine."""

    name: str
    version: str
    """Version number in the registry, or tokens of a run; empty for a directory."""
    folder: Path
    """Hugging Face directory; verified if it comes from the registry or a run."""
    manifest: registry.VersionManifest | None = None
    """None if the model does not come from the registry."""


def choose_model(model: str, store: str | None, stack: ExitStack, *, quiet: bool) -> ModelChoice:
    """Fetches or exports the model `model`. Temporary files live until `stack` is closed.

    Raises:
        UsageError: there is no such model, and the existing ones are listed; or it would run code, or lead elsewhere.
        DamageError: the files differ from the published ones.
    """
    if model.startswith(RUN):
        return _exported(model.removeprefix(RUN), store, stack, quiet=quiet)
    folder = local_path(model)
    if (folder / "config.json").is_file():
        check_model_folder(folder)
        return ModelChoice(folder.absolute().name, "", folder)
    if folder.is_dir():
        raise UsageError(
            f"{model} is not a Hugging Face directory: it has no config.json; headway export RUN writes one"
        )
    registered, version = registry.find(choose_store(store), model)
    folder = registered.fetch(version)
    check_model_folder(folder)
    return ModelChoice(registered.name, str(version.number), folder, registered.manifest(version))


def _exported(reference: str, store: str | None, stack: ExitStack, *, quiet: bool) -> ModelChoice:
    """Exports the newest checkpoint of a run, or the one at the given tokens."""
    name, _, tokens = reference.partition("@")
    if tokens and not tokens.isdecimal():
        raise UsageError(
            f"{RUN}{reference}: the part after @ must be the tokens of a checkpoint, as in headway status {name}"
        )
    run = choose_run(name, store)
    commit = choose_commit(run, int(tokens) if tokens else None)

    from headway import export
    from headway.checkpoint.reader import StoredCheckpoint

    checkpoint = StoredCheckpoint(run.store, commit)
    folder = stack.enter_context(temporary_folder()) / name
    with bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=export.parameter_bytes(checkpoint), note="")
        export.write_checkpoint(
            run, checkpoint, folder, dtype="bfloat16", advance=lambda done: progress.advance(task, done)
        )
    return ModelChoice(name, str(commit.tokens), folder)
