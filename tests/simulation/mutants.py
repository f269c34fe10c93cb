"""Bugs to plant in the protocol, as text replacements in production code.

A mutant whose text no longer matches the code fails.
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
    """`module:function` or `module:Class.method` below `headway.`."""
    edits: tuple[tuple[str, str], ...]
    """Old and new text, indented as in a function at module level."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Plant the bug during the block."""
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
        exec(compile(source, self.name, "exec"), vars(module), scope)  # noqa: S102 - the text is below
        sound, function.__code__ = function.__code__, scope[name].__code__  # for all importers of the function
        try:
            yield
        finally:
            function.__code__ = sound


MUTANTS = (
    Mutant(
        "an append without a check for fencing",
        "runs.journal:Journal.append",
        (("lambda: self.check_unfenced(attempt)", "lambda: None"),),
    ),
    Mutant(
        "a check for fencing before the first try only",
        "runs.hashlog:HashLog.add",
        (
            ("    with self._lock:", "    self.read()\n    check()\n    with self._lock:"),
            ("    check()\n            ", "    "),
        ),
    ),
    Mutant(
        "a claim that does not fence",
        "runs.journal:Journal.check_unfenced",
        (("newest.seq > attempt", "newest.seq > attempt + 99"),),
    ),
    Mutant(
        "an attempt that writes after its end",
        "runs.journal:Journal.check_unfenced",
        (("isinstance(entry, Ended) and entry.attempt == attempt", "False"),),
    ),
    Mutant(
        "a lost response that counts as another's entry",
        "runs.hashlog:HashLog.add",
        (
            (
                "data = self.store.get(keys.hashlog_entry(self.prefix, seq), 0, ENTRY_BYTES + 1)",
                "self._accept(seq, self.store.get(keys.hashlog_entry(self.prefix, seq))); continue",
            ),
        ),
    ),
    Mutant(
        "an entry of another that counts as one's own",
        "runs.hashlog:HashLog.add",
        (("accepted.nonce == nonce", "True"),),
    ),
    Mutant(
        "an append that is repeated with a new nonce after a lost response",
        "runs.journal:Journal.append",
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
        "runs.hashlog:HashLog.add",
        (
            (
                "self.store.create(keys.hashlog_entry(self.prefix, seq), data)",
                "self.store.put(keys.hashlog_entry(self.prefix, seq), [data])",
            ),
        ),
    ),
    Mutant(
        "a late listing whose gaps are not filled",
        "runs.hashlog:HashLog._catch_up",
        (
            (
                "numbers = range(len(self.entries) + 1, last + 1)",
                "numbers = [number for number in listed if number > len(self.entries)]",
            ),
        ),
    ),
    Mutant(
        "packs that are not full",
        "runs.journal:Journal.pack",
        (("while len(self._unpacked) >= pack.ENTRIES:", "while self._unpacked:"),),
    ),
    Mutant(
        "packs compared with entries that are older",
        "runs.journal:Journal.check_packs",
        (("self._catch_up(self._last_packed(len(packs)))", "pass"),),
    ),
    Mutant(
        "a checkpoint without its attempt in its name",
        "runs.keys:checkpoint",
        (("{attempt:08d}", "00000001"),),
    ),
    Mutant(
        "a commit before its manifest",
        "checkpoint.commit:CheckpointWriter.commit",
        (
            ("    self.run.store.put(key, [data])\n", ""),
            ("    return key", "    self.run.store.put(key, [data])\n    return key"),
        ),
    ),
    Mutant(
        "a shard whose failure is not reported",
        "checkpoint.commit:CheckpointWriter.write_shard",
        (
            (
                "    self.run.store.put(serialized.shard.key, serialized.parts)",
                "    with suppress(Exception):\n        self.run.store.put(serialized.shard.key, serialized.parts)",
            ),
        ),
    ),
    Mutant(
        "a checkpoint that is deleted before it is pruned",
        "checkpoint.retention:Retention.prune",
        (
            (
                "        run.journal.append(",
                """        for key in [*run.store.list(keys.folder(surplus[0].manifest))]:
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
        "retention that leaves nothing to roll back to",
        "checkpoint.retention:Retention.surplus",
        (("not self.horizon", "True"),),
    ),
    Mutant(
        "garbage of attempts that may still commit it",
        "runs.garbage:find_garbage",
        (("(part.attempt < newest or part.attempt in ended)", "True"),),
    ),
    Mutant(
        "garbage by a journal that was read before the listing",
        "runs.garbage:find_garbage",
        (
            ("    stored_keys = list(", "    entries = run.journal.read()\n    stored_keys = list("),
            ("  # before the journal: see below\n    entries = run.journal.read()\n", "\n"),
            ("part.attempt < newest", "part.attempt != newest"),
        ),
    ),
    Mutant(
        "garbage by the commits that count instead of all that are named",
        "runs.garbage:find_garbage",
        (("for entry in entries if isinstance(entry, Committed)}", "for entry in run.history().commits}"),),
    ),
    Mutant(
        "bytes without a check of their checksum",
        "checkpoint.reader:StoredCheckpoint._verified",
        (("if checksum([block]) != chunk.checksums[at // BLOCK_BYTES]:", "if False:"),),
    ),
    Mutant(
        "damage found in a checkpoint that was pruned meanwhile",
        "checkpoint.verify:verify",
        (("elif commit.manifest not in run.history().pruned:", "else:"),),
    ),
    Mutant(
        "a roll-back that ignores a claim that came between",
        "runs.run:Run.claim",
        (("self.journal.check_unfenced(follows)", "pass"),),
    ),
    Mutant(
        "a person's roll-back that fences nobody",
        "runs.rollback:roll_back",
        (("run.claim(holder, run.recipe(), data, take_over=take_over).attempt", "history.attempts[-1].number"),),
    ),
    Mutant(
        "a roll-back that undoes nothing",
        "runs.history:_decide",
        (("history.commits = [c for c in history.commits if c.tokens <= restored]", "pass"),),
    ),
)
