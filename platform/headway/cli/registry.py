"""The model registry: `headway publish`, `headway models` and `headway alias`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

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
    choose_store,
)
from headway.cli.screen import ago, bar, count, decimal, result, show, size, table
from headway.errors import DamageError, UsageError
from headway.objectstore.probe import check_creates
from headway.registry import RegisteredModel, Version, VersionManifest, find, model_names
from headway.runs import Committed, Run
from headway.telemetry import Spans, Trace, environment_trace

COLUMNS = ("version", "aliases", "run", ">tokens", ">held-out", ">size", "published")
ORIGIN = ("dtype", "checkpoint", "recipe", "data", "code")
"""More columns, where one model is asked about."""
SHORT = 12
"""Digits of a digest that are enough to tell two apart."""


@dataclass(frozen=True)
class ModelRow:
    """One version, and what is wrong with it."""

    version: Version
    aliases: Sequence[str]
    manifest: VersionManifest | None
    problem: str | None


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
    """Publish a checkpoint as the next version of a model: verified, with its card, its checksums and its origin.

    A version never changes. Publishing the same checkpoint again makes no other one. The files are put together in
    TMPDIR first.

    Example: **headway publish quickstart --as coder --alias candidate**
    """
    found = choose_run(run, store)
    commit = choose_commit(found, tokens)
    model = RegisteredModel(found.store, name)
    if alias is not None:
        model.check_alias(alias)
    check_creates(found.store, way_around="")

    from headway import export
    from headway.checkpoint.reader import StoredCheckpoint

    checkpoint = StoredCheckpoint(found.store, commit)
    held_out = checkpoint.manifest.progress.held_out
    before = model.versions()
    origin = _trace(found, commit)
    with (
        TemporaryDirectory(prefix="headway-publish-") as scratch,
        bar(quiet=quiet) as progress,
        Spans("headway-publish", trace=origin, resource={"headway.run.id": run}) as spans,
        spans.span("registry.publish", model=name, tokens=commit.tokens) as span,
    ):
        task = progress.add_task("exporting", total=export.size(checkpoint), note="")
        folder = Path(scratch) / name
        files = export.write_checkpoint(
            found, checkpoint, folder, data=data, dtype=dtype, advance=lambda done: progress.advance(task, done)
        )
        lengths = {file.name: file.stat().st_size for file in files}
        task = progress.add_task("publishing", total=sum(lengths.values()), note="")
        version = model.publish(
            folder,
            export.origin(checkpoint),
            dtype=dtype,
            held_out=held_out if held_out is not None and math.isfinite(held_out) else None,
            trace=str(origin or span.trace),
            advance=lambda done: progress.advance(task, done),
        )
        span.set(version=version.number, bytes=version.bytes)
    if alias is not None:
        model.alias(alias, version.number)
    if version in before:
        show(f"headway: {version} is this checkpoint already; no other version was made", quiet=quiet)
    document: dict[str, Any] = {
        "model": name,
        "version": version.number,
        "new": version not in before,
        "aliases": _called(model.aliases(), version),
        "run": run,
        "tokens": commit.tokens,
        "files": lengths,
        "manifest": version.manifest,
        "sha256": version.sha256,
    }
    called = f" ({', '.join(document['aliases'])})" if document["aliases"] else ""
    text = f"{version}{called}: {len(files)} files, {size(version.bytes)}, from {commit.tokens:,} tokens of {run}"
    result(document, text, as_json=as_json)


def models(
    reference: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A model, or NAME@VERSION, or NAME@ALIAS. Default: all.")
    ] = None,
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte; leave with 1 if any is damaged.")] = False,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the versions of all models, or of one with where each came from.

    Example: **headway models coder --verify**
    """
    where = choose_store(store)
    asked = (
        [RegisteredModel(where, reference.partition("@")[0])]
        if reference
        else [RegisteredModel(where, name) for name in model_names(where)]
    )
    wanted = [asked[0].find(reference)] if reference and "@" in reference else None
    if reference and wanted is None and not asked[0].journal.read():
        raise UsageError(f"no model {reference} in {where.url}; there: {', '.join(model_names(where)) or 'none'}")
    rows, damage = [], list[str]()
    with bar(quiet=quiet) as progress:
        for model in asked:
            versions, aliases = wanted or model.versions(), model.aliases()
            task = progress.add_task("verifying", total=sum(v.bytes for v in versions), visible=verify, note="")
            for version in versions:
                rows.append(_row(model, version, _called(aliases, version)))
                if verify and not rows[-1].problem:
                    rows[-1] = _verified(model, rows[-1], lambda done, task=task: progress.advance(task, done))
            damage += [f"model {model.name}: {entry.reason}" for entry in model.history().damaged]
    damage += [row.problem for row in rows if row.problem]
    document = {"store": where.url, "models": [_document(row) for row in rows], "findings": damage}
    if not rows and not damage and not as_json:
        show(f"no models in {where.url} yet; make one: headway publish RUN --as NAME", quiet=quiet)
        return
    columns = (*COLUMNS, *ORIGIN) if reference else COLUMNS
    result(document, table(columns, [_cells(row)[: len(columns)] for row in rows]), as_json=as_json)
    for each in damage:
        show(f"headway: {each}")
    if verify and damage:
        raise typer.Exit(1)


def alias(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A version, by number or by another alias.")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="What it is to be called, such as stable.")],
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Point an alias at a version of a model. The files stay as they are; who served which version when is kept.

    Example: **headway alias coder@candidate stable**
    """
    model, version = find(choose_store(store), reference)
    before = model.aliases().get(alias)
    model.alias(alias, version.number)
    was = f", before {model.name}@{before}" if before not in {None, version.number} else ""
    document = {"model": model.name, "alias": alias, "version": version.number, "before": before}
    if as_json or not quiet:
        result(document, f"{model.name}@{alias} is {version}{was}", as_json=as_json)


def _trace(run: Run, commit: Committed) -> Trace | None:
    """The trace of the run, which its model goes on with; else that of this process."""
    attempts = run.history().attempts
    traces = (Trace.parse(each.claim.holder.trace) for each in attempts if each.number == commit.attempt)
    return next(traces, None) or environment_trace()


def _called(aliases: Mapping[str, int], version: Version) -> list[str]:
    """The aliases that point at a version."""
    return [alias for alias, number in aliases.items() if number == version.number]


def _row(model: RegisteredModel, version: Version, aliases: Sequence[str]) -> ModelRow:
    """What a version says of itself."""
    try:
        return ModelRow(version, aliases, model.manifest(version), None)
    except DamageError as error:
        return ModelRow(version, aliases, None, str(error))


def _verified(model: RegisteredModel, row: ModelRow, advance: Any) -> ModelRow:
    """A version that was read whole."""
    try:
        for done in model.verify(row.version):
            advance(done)
    except DamageError as error:
        return ModelRow(row.version, row.aliases, row.manifest, str(error))
    return row


def _document(row: ModelRow) -> dict[str, Any]:
    version, manifest = row.version, row.manifest
    return {
        "model": version.model,
        "version": version.number,
        "aliases": list(row.aliases),
        "bytes": version.bytes,
        "published": version.time,
        "manifest": version.manifest,
        "sha256": version.sha256,
        "held_out": manifest.held_out if manifest else None,
        "dtype": manifest.dtype if manifest else None,
        "quantization": manifest.quantization if manifest else None,
        "origin": manifest.origin.model_dump() if manifest else None,
        "code": manifest.code.model_dump() if manifest else None,
        "trace": manifest.trace if manifest else None,
        "problem": row.problem,
    }


def _cells(row: ModelRow) -> list[str]:
    version, manifest = row.version, row.manifest
    first = [str(version), ", ".join(row.aliases) or "-"]
    if manifest is None:
        return [*first, "damaged", "-", "-", size(version.bytes), ago(version.time), *["-"] * len(ORIGIN)]
    origin, code = manifest.origin, manifest.code
    return [
        *first,
        origin.run,
        count(origin.tokens),
        decimal(manifest.held_out),
        size(version.bytes),
        ago(version.time),
        manifest.quantization or manifest.dtype,
        origin.sha256[:SHORT],
        origin.recipe[:SHORT],
        origin.data[:SHORT],
        f"{code.headway} {(code.commit or '')[:SHORT]}".rstrip(),
    ]
