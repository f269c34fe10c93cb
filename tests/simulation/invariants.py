"""Invariants of the run protocol, checked at the effect of each write and at each result.

They interpret the bytes of the journal on their own, independently of the code under test.
"""

import json
from collections import Counter
from typing import Any

from headway.checkpoint.verify import Finding
from headway.runs import Committed, Entry, keys
from headway.runs.entries import sha256
from headway.runs.keys import CheckpointKey
from tests.simulation.content import WIDTH, content
from tests.simulation.scheduler import Violation

Fields = dict[str, Any]


class Invariants:
    """The invariants of one run, and its history so far."""

    def __init__(self, run: str, objects: dict[str, bytes], *, keep: int, reach: int, packed: int) -> None:
        """`packed` is the number of entries per pack; `objects` are the live contents of the store."""
        self.run, self.objects, self.keep, self.reach, self.packed = run, objects, keep, reach, packed
        self.entries: list[Fields] = []
        self.bodies: list[bytes] = []
        self.commits: list[Fields] = []
        """Checkpoints that count."""
        self.undone: list[Fields] = []
        self.abandoned: set[str] = set()
        """Manifests of all checkpoints that a roll-back undid, pruned or not."""
        self.named: dict[str, Fields] = {}
        """Commit entries by checkpoint folder, without pruned ones."""
        self.pruned: set[str] = set()
        """Folders of pruned checkpoints."""
        self.claims: list[int] = []
        self.ended: set[int] = set()
        self.distrusts: set[int] = set()
        """Attempts that skipped a checkpoint because of damaged reads."""
        self.newest: dict[int, str | None] = {}
        """Manifest of the newest checkpoint at each attempt's claim."""
        self.spoiled: set[str] = set()
        """Keys of packs that were damaged in the store."""
        self.counts: Counter[str] = Counter()
        self._wrote: dict[str, bytes] = {}
        self._nonces: dict[str, int] = {}
        self._refused: set[str] = set()

    def writes(self, key: str, data: bytes, old: bytes | None) -> None:
        """Check a write that replaces `old`."""
        if key.startswith(keys.journal(self.run)):
            _check(old is None, f"{key} is overwritten")
            self._appended(key, data)
        elif key.startswith(keys.packs(self.run)):
            first = (keys.numbered(keys.packs(self.run), key) or 0) * self.packed
            _check(old is None, f"{key} is overwritten")
            copied = [entry.encode() for entry in json.loads(data)]
            _check(copied == self.bodies[first : first + self.packed], f"{key} is no copy of its entries")
            _check(len(copied) == self.packed, f"{key} is not full")
            self.counts["pack"] += 1
        elif key.startswith(keys.checkpoints(self.run)):
            _check(self._wrote.setdefault(key, data) == data, f"{key} is used twice, with other bytes")

    def deletes(self, key: str, objects: dict[str, bytes]) -> None:
        """Check a deletion."""
        if key not in objects:
            return
        folder, attempt = keys.folder(key), attempt_of(key)
        _check(key.startswith(keys.checkpoints(self.run)), f"{key} is no checkpoint object, but deleted")
        _check(folder not in self.named, f"{key} is deleted, but the journal names it and has not pruned it")
        closed = attempt is not None and self._closed(attempt)
        _check(folder in self.pruned or closed, f"{key} is deleted, but attempt {attempt} may still commit it")
        self.counts["pruned object" if folder in self.pruned else "garbage object"] += 1

    def granted(self, entry: Entry) -> None:
        """Check that an entry that was reported as appended is in the journal."""
        present = self._nonces.get(entry.nonce) == entry.seq and self.entries[entry.seq - 1]["kind"] == entry.kind
        _check(present, f"an append of {entry.kind} returned entry {entry.seq}, which is another's")

    def refused(self, nonce: str | None) -> None:
        """Check that an entry that was reported as refused is not in the journal."""
        if nonce is not None:
            _check(nonce not in self._nonces, f"entry {self._nonces.get(nonce)} exists, but its writer was refused")
            self._refused.add(nonce)

    def reads(self, commit: Committed, data: bytes) -> None:
        """Check the bytes of a checkpoint that was read."""
        self.counts["read"] += 1
        _check(data == content(commit.tokens, commit.attempt), f"{commit.manifest} was read with wrong bytes")

    def resumes(self, attempt: int, manifest: str | None) -> None:
        """Check the checkpoint from which an attempt resumes; None: from the start."""
        self.counts["resumed" if manifest else "begun"] += 1
        wrong = manifest != self.newest[attempt] and attempt not in self.distrusts
        _check(not wrong, f"attempt {attempt} resumes from {manifest}, but the newest was {self.newest[attempt]}")

    def follows(self, attempt: int, before: int) -> None:
        """Check a process's claim after its roll-back."""
        between = [claim for claim in self.claims if before < claim < attempt]
        _check(not between, f"attempt {attempt} follows {before}, but {between} came between")

    def damage(self, manifest: str, reason: str, *, misread: bool) -> None:
        """Check a failed read of a checkpoint; `misread` reads returned damaged bytes."""
        self.counts["damage found" if misread else "read while it was given up"] += 1
        _check(misread or keys.folder(manifest) in self.pruned, f"{manifest} counts, but cannot be read: {reason}")

    def finding(self, finding: Finding, *, misread: bool, late: bool) -> None:
        """Check a finding of `verify`. With `late` listings it may not know the newest pruned checkpoints."""
        if finding.problem.partition(":")[0] in self.spoiled:
            return
        _check(finding.manifest is not None, f"verify reports a false finding: {finding.problem}")
        _check(misread or late, f"verify reports a pruned checkpoint: {finding.problem}")
        self.damage(str(finding.manifest), finding.problem, misread=misread)

    def garbage(self) -> list[str]:
        """Keys of garbage objects."""
        return [
            key
            for key in sorted(self.objects)
            if key.startswith(keys.checkpoints(self.run))
            and keys.folder(key) not in self.named
            and (keys.folder(key) in self.pruned or self._closed(attempt_of(key) or 0))
        ]

    def _closed(self, attempt: int) -> bool:
        """Whether `attempt` can append no more entries."""
        return attempt < (self.claims or [0])[-1] or attempt in self.ended

    def _appended(self, key: str, data: bytes) -> None:
        entry: Fields = json.loads(data)
        seq, attempt, kind, nonce = entry["seq"], entry["attempt"], entry["kind"], entry["nonce"]
        label = f"entry {seq} ({kind} by attempt {attempt})"
        _check(key == keys.journal_entry(self.run, seq), f"{key} has the number {seq}")
        _check(seq == len(self.entries) + 1, f"{label} follows entry {len(self.entries)}")
        _check(
            entry["previous"] == (sha256(self.bodies[-1]) if self.bodies else ""),
            f"{label} has a wrong `previous`",
        )
        _check(nonce not in self._nonces, f"{label} was written before, as entry {self._nonces.get(nonce)}")
        _check(nonce not in self._refused, f"{label} exists, but its writer was refused")
        if kind == "claimed":
            _check(attempt == seq, f"{label} is not numbered like its entry")
            self.claims.append(attempt)
            self.newest[attempt] = self.commits[-1]["manifest"] if self.commits else None
        else:
            _check(attempt in self.claims, f"{label}: no such claim")
            _check(attempt == self.claims[-1], f"{label} comes after attempt {self.claims[-1]} claimed the run")
            _check(attempt not in self.ended, f"{label} comes after its own end")
        self.entries.append(entry)
        self.bodies.append(data)
        self._nonces[nonce] = seq
        self.counts[kind] += 1
        match kind:
            case "committed":
                self._committed(entry, label)
            case "decided":
                self.undone += [c for c in self.commits if c["tokens"] > entry["restored"]]
                self.abandoned |= {commit["manifest"] for commit in self.undone}
                self.commits = [c for c in self.commits if c["tokens"] <= entry["restored"]]
            case "pruned":
                self._pruned(entry, label)
            case "ended":
                self.ended.add(attempt)
                self.counts[entry["outcome"]] += 1

    def _committed(self, entry: Fields, label: str) -> None:
        """Check a commit: its checkpoint must be complete, unchanged and the newest."""
        folder, tokens, attempt = keys.folder(entry["manifest"]), entry["tokens"], entry["attempt"]
        _check(folder not in self.named and folder not in self.pruned, f"{label}: {folder} was committed before")
        manifest = self.objects.get(entry["manifest"])
        if manifest is None:
            raise Violation(f"{label}: missing {entry['manifest']}")
        _check(sha256(manifest) == entry["sha256"], f"{label}: {entry['manifest']} has other bytes")
        fields = json.loads(manifest)
        _check(
            (fields["tokens"], fields["attempt"]) == (tokens, attempt),
            f"{label}: the manifest is of another checkpoint",
        )
        _check(len(fields["shards"]) == fields["world_size"], f"{label}: the manifest does not name all shards")
        whole = content(tokens, attempt)
        for chunk in fields["tensors"]["model.weight"]["chunks"]:
            at, key = chunk["offset"][0] * WIDTH, fields["shards"][chunk["shard"]]["key"]
            shard = self.objects.get(key, b"")
            stored = shard[chunk["start"] : chunk["start"] + chunk["length"]]
            _check(stored == whole[at : at + chunk["length"]], f"{label}: {key} is missing or has wrong bytes")
        back = bool(self.commits) and tokens < self.commits[-1]["tokens"] and attempt not in self.distrusts
        _check(fields["parent"] not in self.abandoned, f"{label} descends from {fields['parent']}, which was undone")
        _check(not back, f"{label} goes back to {tokens} tokens without a decision")
        self.named[folder] = entry
        self.commits.append(entry)

    def _pruned(self, entry: Fields, label: str) -> None:
        """Check pruning: enough checkpoints must remain, with the newest, and one that a roll-back can reach."""
        removed = set(entry["manifests"])
        current = {commit["manifest"] for commit in (*self.commits, *self.undone)}
        _check(removed <= current, f"{label} prunes unknown checkpoints: {sorted(removed - current)}")
        before, kept = self.commits, [c for c in self.commits if c["manifest"] not in removed]
        _check(len(kept) >= min(self.keep, len(before)), f"{label} leaves {len(kept)} of {len(before)} checkpoints")
        if before:
            _check(kept[-1:] == before[-1:], f"{label} prunes the newest checkpoint")
            oldest = before[-1]["tokens"] - self.reach
            reachable = any(c["tokens"] <= oldest for c in kept) or all(c["tokens"] > oldest for c in before)
            _check(reachable, f"{label} leaves no checkpoint for a roll-back")
        self.commits, self.undone = kept, [c for c in self.undone if c["manifest"] not in removed]
        for manifest in removed:
            self.pruned.add(keys.folder(manifest))
            del self.named[keys.folder(manifest)]


def attempt_of(key: str) -> int | None:
    """The attempt that wrote an object of a checkpoint."""
    part = CheckpointKey.parse(key)
    return part.attempt if part else None


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion reads as one
    if not holds:
        raise Violation(otherwise)
