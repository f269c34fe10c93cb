"""What must hold after every step, judged by one who sees everything: each write as it takes effect, each answer.

Nothing here asks the code under test what the journal means: the rules are written a second time, from its bytes.
"""

import json
from collections import Counter
from typing import Any

from headway.checkpoint.verify import Finding
from headway.runs import Committed, Entry, keys
from headway.runs.entries import sha256
from tests.simulation.content import WIDTH, content
from tests.simulation.scheduler import Violation

Fields = dict[str, Any]


class Invariants:
    """The promises about one run, and what has happened to it so far."""

    def __init__(self, run: str, objects: dict[str, bytes], *, keep: int, reach: int, packed: int) -> None:
        """`packed`: entries of a pack. `objects`: all that the store holds, as it changes."""
        self.run, self.objects, self.keep, self.reach, self.packed = run, objects, keep, reach, packed
        self.entries: list[Fields] = []
        self.bodies: list[bytes] = []
        self.commits: list[Fields] = []
        """Those that count."""
        self.undone: list[Fields] = []
        self.named: dict[str, Fields] = {}
        """Folder of each checkpoint that an entry names, and nobody has given up."""
        self.given_up: set[str] = set()
        """Folders."""
        self.claims: list[int] = []
        self.ended: set[int] = set()
        self.distrusts: set[int] = set()
        """Attempts that skipped a checkpoint whose bytes came over damaged, so that they began further back."""
        self.newest: dict[int, str | None] = {}
        """Manifest of the checkpoint that was the newest when an attempt claimed the run."""
        self.spoiled: set[str] = set()
        """Packs that were damaged where they lie."""
        self.counts: Counter[str] = Counter()
        self._wrote: dict[str, bytes] = {}
        self._nonces: dict[str, int] = {}
        self._refused: set[str] = set()

    def writes(self, key: str, data: bytes, old: bytes | None) -> None:
        """An object is about to be written over `old`."""
        if key.startswith(keys.journal(self.run)):
            _check(old is None, f"{key} is written over")
            self._appended(key, data)
        elif key.startswith(keys.packs(self.run)):
            first = int(keys.stem(key)) * self.packed
            _check(old is None, f"{key} is written over")
            copied = [entry.encode() for entry in json.loads(data)]
            _check(copied == self.bodies[first : first + self.packed], f"{key} is no copy of its entries")
            _check(len(copied) == self.packed, f"{key} is not full")
            self.counts["pack"] += 1
        elif key.startswith(keys.checkpoints(self.run)):
            _check(self._wrote.setdefault(key, data) == data, f"{key} is used twice, with other bytes")

    def deletes(self, key: str, objects: dict[str, bytes]) -> None:
        """An object is about to be deleted."""
        if key not in objects:
            return
        folder, attempt = keys.folder(key), keys.attempt_of(key)
        _check(key.startswith(keys.checkpoints(self.run)), f"{key} is deleted, which nobody may")
        _check(folder not in self.named, f"{key} is deleted, but the journal names it and has not given it up")
        closed = attempt is not None and self._closed(attempt)
        _check(folder in self.given_up or closed, f"{key} is deleted, but attempt {attempt} may yet commit it")
        self.counts["pruned object" if folder in self.given_up else "garbage object"] += 1

    def granted(self, entry: Entry) -> None:
        """Somebody was told that its entry stands."""
        stands = self._nonces.get(entry.nonce) == entry.seq and self.entries[entry.seq - 1]["kind"] == entry.kind
        _check(stands, f"somebody was told that it {entry.kind} as entry {entry.seq}, which is another's")

    def refused(self, nonce: str | None) -> None:
        """Somebody was told that its entry does not stand and never will."""
        if nonce is not None:
            _check(nonce not in self._nonces, f"entry {self._nonces.get(nonce)} stands, and its writer was refused")
            self._refused.add(nonce)

    def reads(self, commit: Committed, data: bytes) -> None:
        """Somebody read a checkpoint whole."""
        self.counts["read"] += 1
        _check(data == content(commit.tokens, commit.attempt), f"{commit.manifest} was read as what nobody wrote")

    def resumes(self, attempt: int, manifest: str | None) -> None:
        """An attempt goes on from a checkpoint, or from the beginning."""
        self.counts["resumed" if manifest else "begun"] += 1
        wrong = manifest != self.newest[attempt] and attempt not in self.distrusts
        _check(not wrong, f"attempt {attempt} goes on from {manifest}, and the newest was {self.newest[attempt]}")

    def follows(self, attempt: int, before: int) -> None:
        """A process claimed the run again after a roll-back."""
        between = [claim for claim in self.claims if before < claim < attempt]
        _check(not between, f"attempt {attempt} follows {before} over {between}, which came between")

    def damage(self, manifest: str, reason: str, *, misread: bool) -> None:
        """Somebody could not read a checkpoint, and perhaps some bytes came over damaged."""
        self.counts["damage found" if misread else "read while it was given up"] += 1
        _check(misread or keys.folder(manifest) in self.given_up, f"{manifest} counts, but cannot be read: {reason}")

    def finding(self, finding: Finding, *, misread: bool, late: bool) -> None:
        """`verify` found something. `late`: listings come late, so it may not have known what was given up."""
        if finding.what.partition(":")[0] in self.spoiled:
            return
        _check(finding.manifest is not None, f"verify finds what is not so: {finding.what}")
        _check(misread or late, f"verify blames what was given up: {finding.what}")
        self.damage(str(finding.manifest), finding.what, misread=misread)

    def garbage(self) -> list[str]:
        """Objects of checkpoints that nobody will ever read."""
        return [
            key
            for key in sorted(self.objects)
            if key.startswith(keys.checkpoints(self.run))
            and keys.folder(key) not in self.named
            and (keys.folder(key) in self.given_up or self._closed(keys.attempt_of(key) or 0))
        ]

    def _closed(self, attempt: int) -> bool:
        """Whether no entry of `attempt` can follow any more."""
        return attempt < (self.claims or [0])[-1] or attempt in self.ended

    def _appended(self, key: str, data: bytes) -> None:
        entry: Fields = json.loads(data)
        seq, attempt, kind, nonce = entry["seq"], entry["attempt"], entry["kind"], entry["nonce"]
        said = f"entry {seq} ({kind} by attempt {attempt})"
        _check(key == keys.entry(self.run, seq), f"{key} says that it is entry {seq}")
        _check(seq == len(self.entries) + 1, f"{said} follows entry {len(self.entries)}")
        _check(entry["previous"] == (sha256(self.bodies[-1]) if self.bodies else ""), f"{said} knows another past")
        _check(nonce not in self._nonces, f"{said} was written before, as entry {self._nonces.get(nonce)}")
        _check(nonce not in self._refused, f"{said} stands, but its writer was told that it does not")
        if kind == "claimed":
            _check(attempt == seq, f"{said} is not numbered as its entry")
            self.claims.append(attempt)
            self.newest[attempt] = self.commits[-1]["manifest"] if self.commits else None
        else:
            _check(attempt in self.claims, f"{said}: nobody claimed that")
            _check(attempt == self.claims[-1], f"{said} comes after attempt {self.claims[-1]} claimed the run")
            _check(attempt not in self.ended, f"{said} comes after its own end")
        self.entries.append(entry)
        self.bodies.append(data)
        self._nonces[nonce] = seq
        self.counts[kind] += 1
        match kind:
            case "committed":
                self._committed(entry, said)
            case "decided":
                self.undone += [c for c in self.commits if c["tokens"] > entry["restored"]]
                self.commits = [c for c in self.commits if c["tokens"] <= entry["restored"]]
            case "pruned":
                self._pruned(entry, said)
            case "ended":
                self.ended.add(attempt)
                self.counts[entry["outcome"]] += 1

    def _committed(self, entry: Fields, said: str) -> None:
        """A checkpoint became true: all of it must be there, as its own writer wrote it, and be the newest."""
        folder, tokens, attempt = keys.folder(entry["manifest"]), entry["tokens"], entry["attempt"]
        _check(folder not in self.named and folder not in self.given_up, f"{said}: {folder} was committed before")
        manifest = self.objects.get(entry["manifest"])
        if manifest is None:
            raise Violation(f"{said}: there is no {entry['manifest']}")
        _check(sha256(manifest) == entry["sha256"], f"{said}: {entry['manifest']} is another")
        fields = json.loads(manifest)
        _check((fields["tokens"], fields["attempt"]) == (tokens, attempt), f"{said}: the manifest is of another")
        _check(len(fields["shards"]) == fields["world_size"], f"{said}: the manifest does not name all shards")
        whole = content(tokens, attempt)
        for chunk in fields["tensors"]["model.weight"]["chunks"]:
            at, key = chunk["offset"][0] * WIDTH, fields["shards"][chunk["shard"]]["key"]
            shard = self.objects.get(key, b"")
            there = shard[chunk["start"] : chunk["start"] + chunk["length"]]
            _check(there == whole[at : at + chunk["length"]], f"{said}: {key} is missing, or is not what it wrote")
        back = bool(self.commits) and tokens < self.commits[-1]["tokens"] and attempt not in self.distrusts
        _check(not back, f"{said} goes back to {tokens} tokens, and no decision says so")
        self.named[folder] = entry
        self.commits.append(entry)

    def _pruned(self, entry: Fields, said: str) -> None:
        """Checkpoints were given up: enough must be left, the newest of them, and one that a roll-back can reach."""
        gone = set(entry["manifests"])
        known = {commit["manifest"] for commit in (*self.commits, *self.undone)}
        _check(gone <= known, f"{said} gives up what nobody has: {sorted(gone - known)}")
        before, left = self.commits, [c for c in self.commits if c["manifest"] not in gone]
        _check(len(left) >= min(self.keep, len(before)), f"{said} leaves {len(left)} of {len(before)} checkpoints")
        if before:
            _check(left[-1:] == before[-1:], f"{said} gives up the newest checkpoint")
            oldest = before[-1]["tokens"] - self.reach
            reachable = any(c["tokens"] <= oldest for c in left) or all(c["tokens"] > oldest for c in before)
            _check(reachable, f"{said} leaves nothing that a roll-back could return to")
        self.commits, self.undone = left, [c for c in self.undone if c["manifest"] not in gone]
        for manifest in gone:
            self.given_up.add(keys.folder(manifest))
            del self.named[keys.folder(manifest)]


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion reads as one
    if not holds:
        raise Violation(otherwise)
