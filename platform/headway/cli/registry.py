"""The model registry: `headway models` and `headway alias`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from headway.cli.options import Json, Quiet, StoreUrl, choose_store
from headway.cli.screen import ago, bar, count, decimal, result, show, size, table
from headway.errors import DamageError, UsageError
from headway.objectstore import Store
from headway.registry import RegisteredModel, Version, VersionManifest, find, model_names, strays_among_models

COLUMNS = ("version", "aliases", "run", ">tokens", ">held-out", ">size", "published")
ORIGIN_COLUMNS = ("dtype", "checkpoint", "recipe", "data", "code")
"""Further columns if one model is shown."""
DIGEST_DIGITS = 12
"""Number of digits of a digest in a table."""


@dataclass(frozen=True)
class ModelRow:
    """One version of a model."""

    version: Version
    aliases: Sequence[str]
    manifest: VersionManifest | None
    problem: str | None
    """Damage of the version, if there is any."""


def models(
    reference: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A model, NAME@VERSION or NAME@ALIAS. Default: all models.")
    ] = None,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify every byte; exit with code 1 if there is damage.")
    ] = False,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the versions of all models; for one model, with the origin of each version.

    Example: **headway models coder --verify**
    """
    source = choose_store(store)
    selected, version = _select(source, reference)
    rows, damage = [], list[str]()
    with bar(quiet=quiet) as progress:
        for model in selected:
            versions = model.versions() if version is None else [version]
            task = progress.add_task("verifying", total=sum(v.bytes for v in versions), visible=verify, note="")
            aliases = model.aliases()
            for each in versions:
                row = _row(model, each, [alias for alias, number in aliases.items() if number == each.number])
                if verify and not row.problem:
                    row = _verify(model, row, partial(progress.advance, task))
                rows.append(row)
            damage += model.findings()
    damage += [row.problem for row in rows if row.problem]
    damage += strays_among_models(source) if reference is None else []
    document = {"store": source.url, "models": [_document(row) for row in rows], "findings": damage}
    if not rows and not damage and not as_json:
        show(f"no models in {source.url} yet; create one: headway publish RUN --as NAME", quiet=quiet)
        return
    columns = (*COLUMNS, *ORIGIN_COLUMNS) if reference else COLUMNS
    result(document, table(columns, [_cells(row)[: len(columns)] for row in rows]), as_json=as_json)
    for problem in damage:
        show(f"headway: {problem}")
    if verify and damage:
        raise typer.Exit(1)


def alias(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A version, by number or by alias.")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as stable.")],
    store: StoreUrl = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Point an alias at a version of a model. Files do not change; the registry keeps the history of the alias.

    Example: **headway alias coder@candidate stable**
    """
    model, version = find(choose_store(store), reference)
    before = model.aliases().get(alias)
    model.alias(alias, version.number)
    was = f", before {model.name}@{before}" if before not in {None, version.number} else ""
    document = {"model": model.name, "alias": alias, "version": version.number, "before": before}
    if as_json or not quiet:
        result(document, f"{model.name}@{alias} is {version}{was}", as_json=as_json)


def _select(store: Store, reference: str | None) -> tuple[list[RegisteredModel], Version | None]:
    """The models to list, and the version if `reference` names one.

    Raises:
        UsageError: the store has no such model or version.
    """
    if reference is None:
        return [RegisteredModel(store, name) for name in model_names(store)], None
    if "@" in reference:
        model, version = find(store, reference)
        return [model], version
    model = RegisteredModel(store, reference)
    if not model.journal.read():
        names = ", ".join(model_names(store)) or "none"
        raise UsageError(f"no model {reference} in {store.url}; there are: {names}")
    return [model], None


def _row(model: RegisteredModel, version: Version, aliases: Sequence[str]) -> ModelRow:
    """A version with its manifest, or with the damage of the manifest."""
    try:
        return ModelRow(version, aliases, model.manifest(version), None)
    except DamageError as error:
        return ModelRow(version, aliases, None, str(error))


def _verify(model: RegisteredModel, row: ModelRow, advance: Callable[[int], None]) -> ModelRow:
    """Verifies every byte of a version. Returns the row with the damage, if there is any."""
    try:
        for done in model.verify(row.version):
            advance(done)
    except DamageError as error:
        return ModelRow(row.version, row.aliases, row.manifest, str(error))
    return row


def _document(row: ModelRow) -> dict[str, Any]:
    """A version for `--json`."""
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
    """A version for a terminal."""
    version, manifest = row.version, row.manifest
    first = [str(version), ", ".join(row.aliases) or "-"]
    if manifest is None:
        return [*first, "damaged", "-", "-", size(version.bytes), ago(version.time), *["-"] * len(ORIGIN_COLUMNS)]
    origin, code = manifest.origin, manifest.code
    return [
        *first,
        origin.run,
        count(origin.tokens),
        decimal(manifest.held_out),
        size(version.bytes),
        ago(version.time),
        manifest.quantization or manifest.dtype,
        origin.sha256[:DIGEST_DIGITS],
        origin.recipe[:DIGEST_DIGITS],
        origin.data[:DIGEST_DIGITS],
        f"{code.headway} {(code.commit or '')[:DIGEST_DIGITS]}".rstrip(),
    ]
