"""`headway quantize`."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from headway.cli.model import ModelChoice, Named, choose_model
from headway.cli.options import Alias, Json, Quiet, StoreUrl, choose_store
from headway.cli.screen import percent, result, show, size
from headway.errors import UsageError
from headway.registry import RegisteredModel, Version, VersionManifest


def quantize(
    model: Named,
    *,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Directory to make.")] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Publish it as the next version of this model.")
    ] = None,
    alias: Alias = None,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an 8-bit version of a model, which vLLM serves as it is, and say how much it is like the original.

    Weights are rounded per channel, activations per token while it runs (W8A8). Both models are compared on texts that
    the original writes.

    Example: **headway quantize coder@stable --as coder --alias candidate**
    """
    if (to is None) == (name is None):
        raise UsageError("say where it goes: --to DIR, or --as NAME to publish it")
    if alias is not None and name is None:
        raise UsageError("an alias points at a version: publish it with --as NAME")
    with ExitStack() as stack:
        chosen = choose_model(model, store, stack, quiet=quiet)
        if name is not None and chosen.manifest is None:
            raise UsageError(f"{model} has no origin that the registry knows; publish it, then quantize NAME@VERSION")
        target = RegisteredModel(choose_store(store), name) if name is not None else None
        if target and alias is not None:
            target.check_alias(alias)
        show(f"headway: quantizing {chosen.name}", quiet=quiet)

        from headway import export

        folder = to or Path(stack.enter_context(TemporaryDirectory(prefix="headway-quantize-"))) / "model"
        likeness = export.quantize(chosen.folder, folder)
        version = _published(target, folder, chosen, export.INT8, alias) if target else None
    document = {
        "scheme": export.INT8,
        "directory": str(to) if to else None,
        "model": name,
        "version": version and version.number,
        **asdict(likeness),
    }
    text = (
        f"{version or to}: {size(likeness.bytes)} of weights, {likeness.bytes / likeness.original_bytes:.2f} of "
        f"{size(likeness.original_bytes)}; the same next token as the original at {percent(likeness.agreement)} of "
        f"{likeness.positions:,} positions; loss {likeness.loss:.4f}, original {likeness.original_loss:.4f}"
    )
    result(document, text, as_json=as_json)


def _published(model: RegisteredModel, folder: Path, chosen: ModelChoice, scheme: str, alias: str | None) -> Version:
    """Publish what was made, with the origin of what it was made from."""
    source: VersionManifest | None = chosen.manifest
    assert source
    version = model.publish(
        folder, source.origin, dtype=source.dtype, quantization=scheme, held_out=None, trace=source.trace
    )
    if alias is not None:
        model.alias(alias, version.number)
    return version
