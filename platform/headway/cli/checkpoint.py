"""Commands for checkpoints: `headway fingerprint` and `headway verify`."""

from typing import Any

import typer

from headway.cli.options import Json, Quiet, RunName, StoreUrl, Tokens, choose_commit, choose_run
from headway.cli.screen import bar, result, size


def fingerprint(
    run: RunName, tokens: Tokens = None, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Print the SHA-256 of a checkpoint's parameters. Equal fingerprints mean bitwise equal parameters.

    Example: **headway fingerprint quickstart**
    """
    from headway.checkpoint.reader import StoredCheckpoint

    del quiet  # the command prints nothing but its result
    selected = choose_run(run, store)
    commit = choose_commit(selected, tokens)
    digest = StoredCheckpoint(selected.store, commit).fingerprint()
    result({"run": run, "tokens": commit.tokens, "fingerprint": digest}, digest, as_json=as_json)


def verify(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Verify the checksums of a run's journal, recipe and all checkpoints, byte for byte.

    Lists the damage, and the checkpoint that training would fall back to. Exits with code 1 if there is damage.

    Example: **headway verify quickstart && headway export quickstart --to model**
    """
    from headway.checkpoint import verify as verification

    selected = choose_run(run, store)
    commits = selected.history().commits
    findings: list[verification.Finding] = []
    with bar(quiet=quiet) as progress:
        task = progress.add_task("verifying", total=verification.size(selected), note="")
        for each in verification.verify(selected):
            if isinstance(each, int):
                progress.advance(task, each)
            else:
                findings.append(each)
                progress.update(task, note=f"{len(findings)} findings")
    damaged = {finding.manifest for finding in findings}
    sound = [commit.tokens for commit in commits if commit.manifest not in damaged]
    document: dict[str, Any] = {
        "run": run,
        "checkpoints": len(commits),
        "entries": len(selected.journal.entries),
        "bytes": verification.size(selected),
        "findings": [finding.problem for finding in findings],
        "sound": sound,
    }
    if not findings:
        checked = f"{len(commits)} checkpoints with {size(document['bytes'])}"
        result(document, f"sound: {document['entries']:,} journal entries, the recipe, {checked}", as_json=as_json)
        return
    last = f"the checkpoint at {sound[-1]:,} tokens" if sound else "the beginning"
    verb = "continues from" if sound and sound[-1] == commits[-1].tokens else "falls back to"
    number = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    text = "\n".join([*(finding.problem for finding in findings), f"{number}; train {verb} {last}"])
    result(document, text, as_json=as_json)
    raise typer.Exit(1)
