"""`headway quantize`."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headway.cli.model import ModelChoice, Named, choose_model
from headway.cli.options import Alias, Json, Quiet, StoreUrl, choose_store
from headway.cli.screen import percent, result, show, size
from headway.errors import UsageError
from headway.localfiles import local_path
from headway.registry import RegisteredModel, Version, VersionManifest
from headway.temporary_folder import temporary_folder


def quantize(
    model: Named,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", parser=local_path, metavar="DIR", help="Directory to write.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Publish the result as the next version of this model.")
    ] = None,
    alias: Alias = None,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize a model to 8 bits (W8A8), for vLLM, and compare it with the original.

    Weights are quantized per channel, activations per token at run time. The comparison uses texts that the original
    generates.

    Example: **headway quantize coder@stable --as coder --alias candidate**
    """
    if (to is None) == (name is None):
        raise UsageError("give a destination: --to DIR, or --as NAME to publish it")
    if alias is not None and name is None:
        raise UsageError("--alias needs a published version; add --as NAME")
    with ExitStack() as stack:
        choice = choose_model(model, store, stack, quiet=quiet)
        if name is not None and choice.manifest is None:
            raise UsageError(
                f"{model} is not in the registry, so its origin is unknown; publish it, then quantize NAME@VERSION"
            )
        target = RegisteredModel(choose_store(store), name) if name is not None else None
        if target and alias is not None:
            target.check_alias(alias)
        show(f"headway: quantizing {choice.name}", quiet=quiet)

        from headway import export

        folder = to or stack.enter_context(temporary_folder()) / "model"
        comparison = export.quantize(choice.folder, folder)
        version = _published(target, folder, choice, export.INT8, alias) if target else None
    document = {
        "scheme": export.INT8,
        "directory": str(to) if to else None,
        "model": name,
        "version": version and version.number,
        **asdict(comparison),
    }
    text = (
        f"{version or to}: {size(comparison.bytes)} of weights, {comparison.bytes / comparison.original_bytes:.2f} of "
        f"{size(comparison.original_bytes)}; the same next token as the original at {percent(comparison.agreement)} of "
        f"{comparison.positions:,} positions; loss {comparison.loss:.4f}, original {comparison.original_loss:.4f}"
    )
    result(document, text, as_json=as_json)


def _published(model: RegisteredModel, folder: Path, choice: ModelChoice, scheme: str, alias: str | None) -> Version:
    """Publishes the quantized model with the origin of the original."""
    source: VersionManifest | None = choice.manifest
    assert source
    version = model.publish(
        folder, source.origin, dtype=source.dtype, quantization=scheme, held_out=None, trace=source.trace
    )
    if alias is not None:
        model.alias(alias, version.number)
    return version
