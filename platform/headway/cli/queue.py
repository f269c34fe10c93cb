"""`headway cancel` and `headway requeue`."""

from headway.cli.options import Json, Name, Quiet, StoreUrl, choose_store
from headway.cli.screen import result, show
from headway.launch.resolve import cancel_jobs, requeue_jobs, resolve

MAX_IDS = 5
"""Number of job IDs that a message lists."""


def cancel(name: Name, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Cancel the job of a run, or the jobs of an array. Running jobs save first; none of them is requeued.

    Example: **headway cancel slm**, and **headway cancel slm.seed-3** for one run of the array slm
    """
    ids = cancel_jobs(resolve(choose_store(store), name))
    if as_json:
        result({"name": name, "cancelled": ids}, "", as_json=True)
    more = f" and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else ""
    shown = f"{', '.join(ids[:MAX_IDS])}{more}"
    show(f"headway: {name}: cancelled {shown}; headway requeue {name} continues it", quiet=quiet)


def requeue(name: Name, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Put a run, or the runs of an array that are not done, back into the queue.

    Running jobs save, stop and wait for their turn. Runs whose jobs are over are submitted again unchanged.

    Example: **headway requeue slm**
    """
    outcome = requeue_jobs(resolve(choose_store(store), name))
    if as_json:
        document = {
            "name": name,
            "stopped": outcome.requeued,
            "waiting": outcome.waiting,
            "done": outcome.done,
            "again": outcome.resubmitted,
            "job": outcome.job,
        }
        result(document, "", as_json=True)
    groups = [
        (outcome.requeued, "stopped and requeued"),
        (outcome.resubmitted, f"submitted again as job {outcome.job}"),
        (outcome.waiting, "in the queue already"),
        (outcome.done, "done, nothing left to train"),
    ]
    total = sum(len(runs) for runs, _ in groups)
    for runs, action in groups:
        if runs:
            share = f": {len(runs)} of {total} runs" if total > 1 else ""
            show(f"headway: {name}: {action}{share}", quiet=quiet)
