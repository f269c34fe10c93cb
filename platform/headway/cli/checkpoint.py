"""Commands about a run's checkpoints: `headway fingerprint` and `headway verify`."""

from typing import Any

import typer

from headway.cli.options import Json, Quiet, RunName, StoreUrl, Tokens, choose_commit, choose_run
from headway.cli.screen import bar, result, size


def fingerprint(
    run: RunName, tokens: Tokens = None, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Print the SHA-256 of a checkpoint's parameters: two runs are the same run when these are equal.

    Example: **headway fingerprint quickstart**
    """
    from headway.checkpoint.reader import StoredCheckpoint

    del quiet  # a fingerprint is nothing but its result
    found = choose_run(run, store)
    commit = choose_commit(found, tokens)
    digest = StoredCheckpoint(found.store, commit).fingerprint()
    result({"run": run, "tokens": commit.tokens, "fingerprint": digest}, digest, as_json=as_json)


def verify(run: RunName, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Read a run whole and check every checksum: journal, recipe, and every byte of every checkpoint.

    Names each damaged thing, and the checkpoint that training would fall back to. Leaves with 1 if there is any.

    Example: **headway verify quickstart && headway export quickstart --to model**
    """
    from headway.checkpoint import verify as whole

    found = choose_run(run, store)
    commits = found.history().commits
    findings: list[whole.Finding] = []
    with bar(quiet=quiet) as progress:
        task = progress.add_task("verifying", total=whole.size(found), note="")
        for each in whole.verify(found):
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
        "entries": len(found.journal.entries),
        "bytes": whole.size(found),
        "findings": [finding.what for finding in findings],
        "sound": sound,
    }
    if not findings:
        read = f"{len(commits)} checkpoints with {size(document['bytes'])}"
        result(document, f"sound: {document['entries']:,} journal entries, the recipe, {read}", as_json=as_json)
        return
    last = f"the checkpoint at {sound[-1]:,} tokens" if sound else "the beginning"
    verb = "goes on from" if sound and sound[-1] == commits[-1].tokens else "falls back to"
    number = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    text = "\n".join([*(finding.what for finding in findings), f"{number}; train {verb} {last}"])
    result(document, text, as_json=as_json)
    raise typer.Exit(1)
