"""Bugs to plant in the protocol: a piece of production code, and what it is replaced with.

They are kept as text, so that each says exactly what is broken, and one whose code has changed fails loudly.
"""

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    place: str
    """`module:function` or `module:Class.method`, below `headway.`."""
    edits: tuple[tuple[str, str], ...]
    """What stands there, at the indentation of a function, and what stands there instead."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug, for a while."""
        module_name, _, path = self.place.partition(":")
        module = importlib.import_module(f"headway.{module_name}")
        owner_name, _, name = path.rpartition(".")
        owner: Any = getattr(module, owner_name) if owner_name else module
        function = getattr(owner, name)
        source = textwrap.dedent(inspect.getsource(function))
        for was, now in self.edits:
            if source.count(was) != 1:
                raise LookupError(f"{self.name}: {self.place} holds this {source.count(was)} times: {was}")
            source = source.replace(was, now)
        scope: dict[str, Any] = {}
        exec(compile(source, self.name, "exec"), vars(module), scope)  # noqa: S102 - the text stands below
        sound, function.__code__ = function.__code__, scope[name].__code__  # wherever the function was imported to
        try:
            yield
        finally:
            function.__code__ = sound


MUTANTS = (
    Mutant(
        "an append that does not look for a fence",
        "store.journal:Journal.append",
        (("lambda: self.check_unfenced(attempt)", "lambda: None"),),
    ),
    Mutant(
        "a fence that is looked for once, before the first try",
        "store.chain:Chain.add",
        (
            ("    with self._lock:", "    self.read()\n    check()\n    with self._lock:"),
            ("    check()\n            ", "    "),
        ),
    ),
    Mutant(
        "a claim that does not fence",
        "store.journal:Journal.check_unfenced",
        (("newest.seq > attempt", "newest.seq > attempt + 99"),),
    ),
    Mutant(
        "an attempt that writes after its end",
        "store.journal:Journal.check_unfenced",
        (("isinstance(entry, Ended) and entry.attempt == attempt", "False"),),
    ),
    Mutant(
        "a lost answer that counts as another's entry",
        "store.chain:Chain.add",
        (
            (
                "data = self.store.get(keys.journal_entry(self.prefix, seq))",
                "self._accept(seq, self.store.get(keys.journal_entry(self.prefix, seq))); continue",
            ),
        ),
    ),
    Mutant(
        "a place that was taken counts as one's own",
        "store.chain:Chain.add",
        (("accepted.nonce == nonce", "True"),),
    ),
    Mutant(
        "an append that is tried again as another when its answer was lost",
        "store.journal:Journal.append",
        (
            (
                "    return self._append(",
                """    try:
        return self._append(kind, attempt, lambda: self.check_unfenced(attempt), fields)
    except Exception:
        pass
    return self._append(""",
            ),
        ),
    ),
    Mutant(
        "an entry that is put instead of created",
        "store.chain:Chain.add",
        (
            (
                "self.store.create(keys.journal_entry(self.prefix, seq), data)",
                "self.store.put(keys.journal_entry(self.prefix, seq), [data])",
            ),
        ),
    ),
    Mutant(
        "a late listing whose gaps are not filled",
        "store.chain:Chain._catch_up",
        (("numbers = range(len(self.entries) + 1, last + 1)", "numbers = [int(stem) for stem in listed]"),),
    ),
    Mutant(
        "packs of ranges that are not finished",
        "store.journal:Journal.pack",
        (("while len(self._loose) >= pack.ENTRIES:", "while self._loose:"),),
    ),
    Mutant(
        "packs compared with entries that were read before",
        "store.journal:Journal.unlike_packs",
        (("self._catch_up(len(packs) * pack.ENTRIES)", "pass"),),
    ),
    Mutant(
        "a checkpoint without its attempt in its name",
        "store.keys:checkpoint",
        (("{attempt:08d}", "00000001"),),
    ),
    Mutant(
        "a commit before its manifest",
        "checkpoint.commit:Commit.make_true",
        (
            ("    self.run.store.put(key, [data])\n", ""),
            ("    return key", "    self.run.store.put(key, [data])\n    return key"),
        ),
    ),
    Mutant(
        "a shard whose failure nobody is told",
        "checkpoint.commit:Commit.write_shard",
        (
            (
                "    self.run.store.put(laid.shard.key, laid.parts)",
                "    try:\n        self.run.store.put(laid.shard.key, laid.parts)\n    except Exception:\n        pass",
            ),
        ),
    ),
    Mutant(
        "a checkpoint that is deleted before it is given up",
        "checkpoint.retention:Retention.prune",
        (
            (
                "        run.journal.append(",
                """        for key in [*run.store.list(keys.folder(given_up[0].manifest))]:
            run.store.delete(key)
        run.journal.append(""",
            ),
        ),
    ),
    Mutant(
        "retention that keeps none",
        "checkpoint.retention:Retention.surplus",
        (("sound >= self.keep", "True"),),
    ),
    Mutant(
        "retention that keeps nothing to roll back to",
        "checkpoint.retention:Retention.surplus",
        (("not self.reach", "True"),),
    ),
    Mutant(
        "garbage of attempts that may yet commit it",
        "store.garbage:garbage",
        (("(attempt < newest or attempt in ended)", "True"),),
    ),
    Mutant(
        "garbage of attempts that are not known, by a journal that was read before the listing",
        "store.garbage:garbage",
        (
            ("    there = list(", "    entries = run.journal.read()\n    there = list("),
            ("  # before the journal: see below\n    entries = run.journal.read()\n", "\n"),
            ("attempt < newest", "attempt != newest"),
        ),
    ),
    Mutant(
        "garbage by the commits that count, which are not all that are named",
        "store.garbage:garbage",
        (("for entry in entries if isinstance(entry, Committed)}", "for entry in run.history().commits}"),),
    ),
    Mutant(
        "bytes that are not compared with their checksum",
        "checkpoint.stored:StoredCheckpoint._checked",
        (("if checksum([block]) != chunk.checksums[at // BLOCK_BYTES]:", "if False:"),),
    ),
    Mutant(
        "damage that is found in what was given up meanwhile",
        "checkpoint.verify:verify",
        (("elif commit.manifest not in run.history().pruned:", "else:"),),
    ),
    Mutant(
        "a roll-back that claims the run over whoever came between",
        "store.run:Run.claim",
        (("self.journal.check_unfenced(follows)", "pass"),),
    ),
    Mutant(
        "a roll-back that undoes nothing",
        "store.history:fold",
        (("history.commits = [c for c in history.commits if c.tokens <= restored]", "pass"),),
    ),
)
