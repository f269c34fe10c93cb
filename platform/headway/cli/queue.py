"""`headway cancel` and `headway requeue`."""

from dataclasses import asdict

from headway.cli.options import Json, Name, Quiet, StoreUrl, choose_store
from headway.cli.screen import result, show
from headway.launch import resolve as targets


def cancel(name: Name, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """End a run's job, or those of an array: what runs saves first, and nothing comes back by itself.

    Example: **headway cancel slm**, and **headway cancel slm.seed-3** for one run of the array slm
    """
    ended = targets.cancel(targets.resolve(choose_store(store), name))
    if as_json:
        result({"name": name, "cancelled": ended}, "", as_json=True)
    some = ", ".join(ended[:5]) + (f" and {len(ended) - 5} more" if len(ended) > 5 else "")
    show(f"headway: {name}: cancelled {some}; headway requeue {name} goes on with it", quiet=quiet)


def requeue(name: Name, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Queue a run anew, or those of an array that are not done.

    What runs saves, stops and waits for its turn again; what stopped for good is submitted again as it was.

    Example: **headway requeue slm**
    """
    told = targets.requeue(targets.resolve(choose_store(store), name))
    if as_json:
        result({"name": name, **asdict(told)}, "", as_json=True)
    words = [
        (told.stopped, "stopped and queued anew"),
        (told.again, f"submitted again as job {told.job}"),
        (told.waiting, "waiting already"),
        (told.done, "done, with nothing left to train"),
    ]
    total = sum(len(runs) for runs, _ in words)
    for runs, what in words:
        if runs:
            show(f"headway: {name}: {what}" + (f": {len(runs)} of {total} runs" if total > 1 else ""), quiet=quiet)
