"""Scripted runs: journals, ledgers, logs and heartbeats in a real store, at made-up times."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from headway import recipe as recipes
from headway.checkpoint.manifest import CheckpointManifest, Environment, Progress, Tensor
from headway.checkpoint.shard import Piece, serialize
from headway.events.event import LogEvent
from headway.events.training_events import AttemptClaimed, AttemptEnded, CheckpointRestored, EvaluationDone, StepDone
from headway.objectstore import Store
from headway.recipe import Recipe
from headway.runs import Claimed, Committed, Decided, Ended, Heartbeat, Holder, Pruned, keys, write_heartbeat
from headway.runs.entries import encode, sha256
from headway.runs.ledger import LedgerRow
from headway.runs.liveness import RunSummary

BATCH = 1000
BUDGET = 10 * BATCH
MODEL = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "ffn_width": 32}
ELSEWHERE = "node-7"
"""Another machine, whose processes this one cannot inspect."""
Kind = type[Claimed] | type[Committed] | type[Decided] | type[Ended] | type[Pruned]
Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
"""Type, shape and bytes by name."""


def plan(**changes: Any) -> Recipe:
    """A small recipe."""
    document = {
        "name": "tale",
        "data": {"block_tokens": 100},
        "model": MODEL,
        "train": {"tokens": BUDGET, "batch_tokens": BATCH, "micro_batch_tokens": BATCH},
        **changes,
    }
    return recipes.parse(json.dumps(document))


class Story:
    """Writes a run into a store, entry by entry."""

    def __init__(self, store: Store, run: str, recipe: Recipe | None = None, data: str = "data") -> None:
        self.store, self.run, self.data = store, run, data
        self.recipe = recipe or plan()
        self.trace: str | None = None
        """Trace of the following attempts."""
        self.attempt, self._seq, self._tail = 0, 0, ""
        self._chunks: dict[int, int] = {}
        store.create(keys.recipe(run), recipes.to_yaml(self.recipe).encode())

    def claim(self, at: float, lost_at: float | None = None) -> int:
        """Claims the run: starts an attempt."""
        self.attempt = self._seq + 1
        self._add(Claimed, at, holder=self.holder, recipe=recipes.digest(self.recipe), data=self.data, lost_at=lost_at)
        return self.attempt

    def commit(self, at: float, tokens: int, tensors: Tensors | None = None) -> str:
        """Writes and commits a checkpoint of these tensors. Returns the key of its shard."""
        prefix = keys.checkpoint(self.run, tokens, self.attempt)
        held = tensors or {"model.weight": ("float32", (4,), bytes(16))}
        pieces = [
            Piece(name, dtype, shape, (0,) * len(shape), shape, memoryview(data))
            for name, (dtype, shape, data) in held.items()
        ]
        laid = serialize(f"{prefix}00000-of-00001.safetensors", pieces)
        self.store.put(laid.shard.key, laid.parts)
        manifest = CheckpointManifest(
            run=self.run,
            attempt=self.attempt,
            tokens=tokens,
            recipe=recipes.digest(self.recipe),
            data=self.data,
            world_size=1,
            environment=Environment(device="cpu", precision="fp32", threads=1, torch="2", headway="0"),
            progress=Progress(seed=0, updates=tokens // BATCH, held_out=2.5),
            parent=None,
            shards=(laid.shard,),
            tensors={
                piece.name: Tensor(dtype=piece.dtype, shape=piece.shape, chunks=(chunk,))
                for piece, chunk in zip(pieces, laid.chunks, strict=True)
            },
        )
        data = manifest.encode()
        self.store.put(f"{prefix}manifest.json", [data])
        self._add(
            Committed, at, tokens=tokens, manifest=f"{prefix}manifest.json", sha256=sha256(data), bytes=laid.shard.bytes
        )
        return laid.shard.key

    def decide(self, at: float, action: str, skip_from: int, skip_to: int, restored: int | None = None) -> None:
        """Records a decision about a bad batch."""
        self._add(
            Decided, at, action=action, reason="loss nan", skip_from=skip_from, skip_to=skip_to, restored=restored
        )

    def prune(self, at: float, tokens: int) -> None:
        """Prunes the attempt's checkpoint at `tokens`: records it and deletes its objects."""
        prefix = keys.checkpoint(self.run, tokens, self.attempt)
        self._add(Pruned, at, manifests=[f"{prefix}manifest.json"])
        for key in list(self.store.list(prefix)):
            self.store.delete(key)

    def end(self, at: float, outcome: str, tokens: int, reason: str = "asked to stop") -> None:
        """Records the outcome of the attempt."""
        self._add(Ended, at, outcome=outcome, reason=reason, tokens=tokens)

    def ledger(self, began: float, until: float, *phases: Mapping[str, float]) -> None:
        """Writes the attempt's ledger: seconds by phase for each rank."""
        rows = [
            LedgerRow(attempt=self.attempt, rank=rank, started=began, until=until, phases=booked, tokens=0)
            for rank, booked in enumerate(phases)
        ]
        text = "".join(row.model_dump_json() + "\n" for row in rows)
        self.store.put(keys.ledger(self.run, self.attempt), [text.encode()])

    def say(self, *events: Mapping[str, Any]) -> None:
        """Writes a chunk of the attempt's log."""
        chunk = self._chunks.get(self.attempt, 0)
        self._chunks[self.attempt] = chunk + 1
        common = {"run": self.run, "attempt": self.attempt, "rank": 0, "phase": "step", "tokens": 0, "level": "info"}
        common["timestamp"] = datetime.fromtimestamp(0.0, UTC).isoformat()
        text = "".join(json.dumps({**common, **event}) + "\n" for event in events)
        self.store.put(keys.log_chunk(self.run, self.attempt, chunk), [text.encode()])

    def beat(self, at: float, tokens: int = 0, every: float = 2.0, summary: RunSummary | None = None) -> None:
        """Writes a heartbeat of the attempt."""
        write_heartbeat(
            self.store,
            self.run,
            Heartbeat(
                attempt=self.attempt,
                holder=self.holder,
                phase="step",
                tokens=tokens,
                time=at,
                every=every,
                summary=summary,
            ),
        )

    @property
    def holder(self) -> Holder:
        """The holder of the attempt."""
        return Holder(
            host=ELSEWHERE, pid=100 + self.attempt, started=1, launch=f"launch-{self.attempt}", trace=self.trace
        )

    def _add(self, kind: Kind, at: float, **fields: Any) -> None:
        self._seq += 1
        entry = kind(seq=self._seq, attempt=self.attempt, time=at, nonce=str(self._seq), previous=self._tail, **fields)
        data = encode(entry)
        self.store.create(keys.journal_entry(self.run, self._seq), data)
        self._tail = sha256(data)


def said(event: LogEvent, **envelope: Any) -> dict[str, Any]:
    """An event as the log stores it."""
    return {"event": event.name, "level": event.level, **envelope, **event.fields()}


def restored(tokens: int) -> dict[str, Any]:
    """The event of a checkpoint that was restored."""
    return said(CheckpointRestored(at=tokens, manifest=f"{tokens}/manifest.json"), tokens=tokens)


def step(tokens: int, loss: float = 3.0, at: float = 0.0) -> dict[str, Any]:
    """The event of a trained step."""
    timestamp = datetime.fromtimestamp(at, UTC).isoformat()
    done = StepDone(loss=loss, norm=1.0, learning_rate=1e-3, tokens_per_second=500.0)
    return said(done, tokens=tokens, timestamp=timestamp)


def steps(first: int, last: int, loss: float = 3.0) -> Sequence[dict[str, Any]]:
    """The events of steps that end at `first` to `last` tokens, two seconds apart."""
    return [step(tokens, loss, at=tokens / BATCH * 2) for tokens in range(first, last + 1, BATCH)]


def trained(story: Story) -> Story:
    """A run that was preempted, killed with a checkpoint, killed without one, failed, and then finished."""
    story.claim(100)
    story.say(said(AttemptClaimed(ranks=2)), *steps(1000, 2000))
    story.commit(109, 2000)
    story.ledger(90, 110, {"startup": 12.0, "step": 8.0}, {"startup": 12.5, "step": 7.5})
    story.end(110.5, "preempted", 2000)

    story.claim(130)
    story.say(said(AttemptClaimed(ranks=2)), restored(2000), *steps(3000, 6000))
    story.commit(139, 4000)
    story.ledger(120, 138, {"startup": 10.0, "restore": 1.0, "step": 7.0}, {"startup": 10.0, "data": 1.0, "step": 7.0})

    story.claim(160, lost_at=145)
    story.say(said(AttemptClaimed(ranks=3)))

    story.claim(180, lost_at=165)
    story.say(
        said(AttemptClaimed(ranks=1)),
        restored(4000),
        *steps(5000, 8000, 2.0),
    )
    story.commit(190, 7000)
    story.ledger(170, 189, {"startup": 10.0, "step": 9.0})
    story.end(195, "failed", 7000, "rank 0 was killed by SIGKILL")

    story.claim(210)
    story.say(
        said(AttemptClaimed(ranks=1)),
        restored(7000),
        *steps(8000, 10000, 1.5),
        said(EvaluationDone(held_out=1.75), tokens=10000),
        said(AttemptEnded(outcome="done", reason="budget reached"), tokens=10000),
    )
    story.commit(220, 10000)
    story.ledger(200, 221, {"startup": 9.0, "step": 10.0, "evaluation": 1.0, "drain": 1.0})
    story.end(221.01, "done", 10000, "budget reached")
    story.beat(221.5, 10000)
    return story


def running(story: Story) -> Story:
    """A run that is trained on another machine now, at 500 tokens/s."""
    now = time.time()
    story.claim(now - 20)
    story.say(said(AttemptClaimed(ranks=1)), *steps(1000, 4000))
    story.commit(now - 5, 3000)
    story.ledger(now - 30, now - 5, {"startup": 15.0, "step": 10.0})
    story.beat(now, 4000, every=60)
    return story
