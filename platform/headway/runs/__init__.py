"""Runs in a store: recipe, journal, history, liveness, logs, ledgers, garbage, and submissions to SLURM."""

from headway.runs.entries import Claimed, Committed, Decided, Ended, Entry, Holder, Pruned
from headway.runs.hashlog import Damaged
from headway.runs.history import Attempt, History, fold
from headway.runs.journal import Journal
from headway.runs.liveness import Heartbeat, is_alive, process_start, read_heartbeat, this_process, write_heartbeat
from headway.runs.run import Run, run_names, strays_among_runs

__all__ = [
    "Attempt",
    "Claimed",
    "Committed",
    "Damaged",
    "Decided",
    "Ended",
    "Entry",
    "Heartbeat",
    "History",
    "Holder",
    "Journal",
    "Pruned",
    "Run",
    "fold",
    "is_alive",
    "process_start",
    "read_heartbeat",
    "run_names",
    "strays_among_runs",
    "this_process",
    "write_heartbeat",
]
