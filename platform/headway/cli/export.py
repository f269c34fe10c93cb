"""`headway export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headway.cli.options import Data, Dtype, Json, Quiet, RunName, StoreUrl, Tokens, choose_commit, choose_run
from headway.cli.screen import bar, result, size
from headway.localfiles import local_path

SAMPLE_TOKENS = 64
"""Length of the continuation of `--sample`."""


def export(
    run: RunName,
    *,
    to: Annotated[
        Path, typer.Option("--to", parser=local_path, metavar="DIR", help="Directory to write; new or empty.")
    ],
    tokens: Tokens = None,
    data: Data = None,
    dtype: Dtype = "float32",
    sample: Annotated[
        str | None, typer.Option(metavar="TEXT", help=f"Let the model continue this text by {SAMPLE_TOKENS} tokens.")
    ] = None,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a Hugging Face directory, which transformers and vLLM load unchanged.

    Verifies every byte of the checkpoint. The directory appears only once it is complete.

    Example: **headway export quickstart --to model --sample 'def main('**
    """
    selected = choose_run(run, store)
    commit = choose_commit(selected, tokens)

    from headway import export as exports
    from headway.checkpoint.reader import StoredCheckpoint

    checkpoint = StoredCheckpoint(selected.store, commit)
    with bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=exports.parameter_bytes(checkpoint), note="")
        files = exports.write_checkpoint(
            selected, checkpoint, to, data=data, dtype=dtype, advance=lambda done: progress.advance(task, done)
        )
    continuation = exports.continuation(to, sample, SAMPLE_TOKENS) if sample is not None else None
    document: dict[str, Any] = {
        "run": run,
        "tokens": commit.tokens,
        "directory": str(to),
        "files": {file.name: file.stat().st_size for file in files},
        "sample": continuation,
    }
    text = f"{to}: {len(files)} files, {size(sum(document['files'].values()))}, from {commit.tokens:,} tokens of {run}"
    result(document, text if continuation is None else f"{text}\n\n{sample}{continuation}", as_json=as_json)
