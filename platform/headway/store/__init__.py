"""The run store: all that matters of a run, under one prefix. The one door to object storage."""

from headway.store.chain import Damaged
from headway.store.entries import Claimed, Committed, Decided, Ended, Entry, Holder, Pruned
from headway.store.history import Attempt, History, fold
from headway.store.journal import Journal
from headway.store.objects import Buffer, Store, open_store
from headway.store.presence import Heartbeat, beat, born, last_beat, lives, this_process
from headway.store.run import Run, names

__all__ = [
    "Attempt",
    "Buffer",
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
    "Store",
    "beat",
    "born",
    "fold",
    "last_beat",
    "lives",
    "names",
    "open_store",
    "this_process",
]
