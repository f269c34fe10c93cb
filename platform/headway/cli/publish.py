"""`headway publish`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.options import (
    Alias,
    Data,
    Dtype,
    Json,
    Quiet,
    RunName,
    StoreUrl,
    Tokens,
    choose_commit,
    choose_run,
)
from headway.cli.screen import bar, result, show, size
from headway.objectstore.probe import check_creates
from headway.registry import RegisteredModel, Version
from headway.runs import Committed, Run
from headway.telemetry import Spans, Trace, environment_trace
from headway.temporary_folder import temporary_folder

if TYPE_CHECKING:
    from headway.checkpoint.reader import StoredCheckpoint


@dataclass(frozen=True)
class PublishedVersion:
    """A version, and the files that were published."""

    version: Version
    files: Mapping[str, int]
    """Sizes by file name [bytes]."""


def publish(
    run: RunName,
    *,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the model.")],
    tokens: Tokens = None,
    alias: Alias = None,
    data: Data = None,
    dtype: Dtype = "bfloat16",
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a checkpoint as the next version of a model, with a model card, checksums and its origin.

    Every byte of the checkpoint is verified. Versions are immutable; publishing the same checkpoint again creates no
    new version. The files are assembled in TMPDIR.

    Example: **headway publish quickstart --as coder --alias candidate**
    """
    selected = choose_run(run, store)
    commit = choose_commit(selected, tokens)
    model = RegisteredModel(selected.store, name)
    if alias is not None:
        model.check_alias(alias)
    check_creates(selected.store, alternative="")

    from headway.checkpoint.reader import StoredCheckpoint

    existing = model.versions()
    published = _publish(
        model, selected, StoredCheckpoint(selected.store, commit), commit, data=data, dtype=dtype, quiet=quiet
    )
    version, files = published.version, published.files
    if alias is not None:
        model.alias(alias, version.number)
    if version in existing:
        show(f"headway: {version} is this checkpoint already; no new version was created", quiet=quiet)
    aliases = [each for each, number in model.aliases().items() if number == version.number]
    document: dict[str, Any] = {
        "model": name,
        "version": version.number,
        "new": version not in existing,
        "aliases": aliases,
        "run": run,
        "tokens": commit.tokens,
        "files": files,
        "manifest": version.manifest,
        "sha256": version.sha256,
    }
    title = f"{version} ({', '.join(aliases)})" if aliases else f"{version}"
    text = f"{title}: {len(files)} files, {size(version.bytes)}, from {commit.tokens:,} tokens of {run}"
    result(document, text, as_json=as_json)


def _publish(
    model: RegisteredModel,
    run: Run,
    checkpoint: "StoredCheckpoint",
    commit: Committed,
    *,
    data: str | None,
    dtype: Dtype,
    quiet: bool,
) -> PublishedVersion:
    """Exports the checkpoint to a temporary folder and publishes it, in a span of the run's trace."""
    from headway import export

    held_out = checkpoint.manifest.progress.held_out
    origin = _trace(run, commit)
    with (
        temporary_folder() as scratch,
        bar(quiet=quiet) as progress,
        Spans("headway-publish", trace=origin, resource={"headway.run.id": run.name}) as spans,
        spans.span("registry.publish", model=model.name, tokens=commit.tokens) as span,
    ):
        task = progress.add_task("exporting", total=export.parameter_bytes(checkpoint), note="")
        folder = scratch / model.name
        files = export.write_checkpoint(
            run, checkpoint, folder, data=data, dtype=dtype, advance=lambda done: progress.advance(task, done)
        )
        sizes = {file.name: file.stat().st_size for file in files}
        task = progress.add_task("publishing", total=sum(sizes.values()), note="")
        version = model.publish(
            folder,
            export.origin(checkpoint),
            dtype=dtype,
            held_out=held_out if held_out is not None and math.isfinite(held_out) else None,
            trace=str(origin or span.trace),
            advance=lambda done: progress.advance(task, done),
        )
        span.set(version=version.number, bytes=version.bytes)
    return PublishedVersion(version, sizes)


def _trace(run: Run, commit: Committed) -> Trace | None:
    """The trace of the attempt that made the commit, else that of this process."""
    attempts = run.history().attempts
    traces = (Trace.parse(each.claim.holder.trace) for each in attempts if each.number == commit.attempt)
    return next(traces, None) or environment_trace()
