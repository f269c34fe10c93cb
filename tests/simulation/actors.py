"""Actors on a run: the processes of a launch, an operator, readers, `verify`, and garbage collectors.

They run production code. Only code that needs torch is copied here line by line: `Saver._write` and `_tidy`,
`TrainingAttempt.decide` and `end`, and `train_task`.
"""

import json
import time
from dataclasses import dataclass, field
from random import Random

from headway import recipe as recipes
from headway.checkpoint.commit import CheckpointWriter, Lineage, ShardReport
from headway.checkpoint.manifest import Environment, Progress
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.retention import Retention
from headway.checkpoint.verify import Finding, verify
from headway.errors import DamageError, FencedError, HeldError, StoreError, UsageError
from headway.recipe import Recipe
from headway.runs import Committed, Decided, Ended, Heartbeat, Holder, Run, keys
from headway.runs.background_writer import BackgroundWriter
from headway.runs.garbage import find_garbage
from headway.runs.rollback import roll_back
from headway.runs.run_log import LogWriter
from headway.train.host.outcome import Failure, conclude
from tests.simulation.content import NAME, pieces
from tests.simulation.invariants import Invariants
from tests.simulation.scheduler import Actor, Scheduler, Violation
from tests.simulation.store import SimulatedStore

RUN = "run"
STEP = 10
"""Tokens from one checkpoint to the next."""
ENVIRONMENT = Environment(device="none", precision="fp32", threads=1, torch="none", headway="simulated")


@dataclass
class World:
    """State that all actors share."""

    random: Random
    scheduler: Scheduler
    store: SimulatedStore
    invariants: Invariants
    recipe: Recipe
    keep: int
    reach: int
    """Distance of roll-backs [tokens]; 0: no roll-backs."""

    def run(self) -> Run:
        """A new process's view of the run."""
        return Run(self.store, RUN)

    @property
    def misread(self) -> int:
        """Number of the current actor's reads that returned damaged bytes."""
        return self.scheduler.current.misread if self.scheduler.current else 0


@dataclass
class Plan:
    """Random behaviour of a launch."""

    name: str
    ranks: int
    saves: int
    rolls_back: bool
    take_over: bool
    says_end: bool
    outcome: str
    impatient: bool
    """Whether the launcher records a failure while rank 0 may still run."""
    launcher: bool
    """Whether there is a launcher; a node can vanish with it."""

    @classmethod
    def draw(cls, name: str, world: World) -> "Plan":
        """Draw a random plan."""
        random = world.random
        return cls(
            name=name,
            ranks=random.choice((1, 1, 2, 3)),
            saves=random.randint(1, 3),
            rolls_back=bool(world.reach) and random.random() < 0.4,
            take_over=random.random() < 0.6,
            says_end=random.random() < 0.8,
            outcome=random.choice(("done", "preempted")),
            impatient=random.random() < 0.3,
            launcher=random.random() < 0.7,
        )


@dataclass
class Launch:
    """One `headway train`: a launcher, rank 0, and other ranks during saves."""

    world: World
    plan: Plan
    failure: Failure | None = None
    """Failure of rank 0."""
    rank_0: Actor | None = None
    retention: Retention = field(init=False)
    parent: str | None = None

    def begin(self) -> None:
        """Start its processes at random times."""
        scheduler, within = self.world.scheduler, 150
        self.rank_0 = scheduler.spawn(f"{self.plan.name} rank 0", self.train, within=within)
        if self.plan.launcher:
            scheduler.spawn(f"{self.plan.name} launcher", self.launch, within=within)

    def launch(self) -> None:
        """The launcher's part after its ranks are gone, or seem to be."""
        if self.plan.impatient:
            for _ in range(self.world.random.randint(10, 100)):
                self.world.scheduler.pause()
        else:
            self.world.scheduler.wait(lambda: self.rank_0 is not None and self.rank_0.over)
        run, launch = self.world.run(), self.plan.name
        try:
            conclude(run, launch, self.failure, stop_requested=not self.failure and self.world.random.random() < 0.3)
        except StoreError:
            self.world.store.counts["launcher gave up"] += 1

    def train(self) -> None:
        """The part of rank 0: `train_task`."""
        run, follows, plan = self.world.run(), None, self.plan
        holder = Holder(host=f"host of {plan.name}", pid=1, started=1, launch=plan.name)
        try:
            while True:
                number = run.claim(holder, self.world.recipe, "data", take_over=plan.take_over, follows=follows).attempt
                if follows is not None:
                    self.world.invariants.follows(number, follows)
                self.beat(run, holder, number)
                if not self.attempt(run, number):
                    return
                follows = number
        except (HeldError, FencedError, StoreError) as error:
            self.failure = Failure(type(error).__name__, str(error))

    def attempt(self, run: Run, number: int) -> bool:
        """Run one attempt; returns whether it rolled back."""
        self.retention = Retention(self.world.keep, horizon=self.world.reach)
        position = self.resume(run, number)
        for _ in range(self.plan.saves):
            position += STEP
            if self.plan.rolls_back and self.world.random.random() < 0.4:
                self.plan.rolls_back = False
                back = max(0, position - self.world.reach)
                run.journal.append(
                    Decided, number, action="rollback", reason="spike", skip_from=back, skip_to=position, restored=back
                )
                return True
            self.save(run, number, position)
        if self.plan.says_end:
            run.journal.append(Ended, number, outcome=self.plan.outcome, reason="simulated", tokens=position)
        return False

    def resume(self, run: Run, number: int) -> int:
        """Restore the newest sound checkpoint; returns its tokens."""
        for commit in reversed(run.history(upto=number).commits):
            if read(self.world, commit):
                self.parent = commit.manifest
                self.world.invariants.resumes(number, commit.manifest)
                return commit.tokens
            self.retention.damaged.add(commit.manifest)
            self.world.invariants.distrusts.add(number)
        self.world.invariants.resumes(number, None)
        self.parent = None
        return 0

    def save(self, run: Run, number: int, tokens: int) -> None:
        """Run `Saver._write` as rank 0. Each other rank is an actor that writes its shard."""
        ranks = self.plan.ranks
        commit = CheckpointWriter(run, Lineage(number, recipes.digest(self.world.recipe), "data", ENVIRONMENT), tokens)
        gathered: dict[int, ShardReport] = {}
        peers = [
            self.peer(CheckpointWriter(self.world.run(), commit.lineage, tokens), rank, gathered)
            for rank in range(1, ranks)
        ]
        try:
            gathered[0] = commit.write_shard(pieces(tokens, number, 0, ranks), rank=0, world_size=ranks)
        except StoreError as error:
            gathered[0] = {"error": str(error)}
        self.world.scheduler.wait(lambda: all(peer.over for peer in peers))
        reports = [gathered.get(rank, {"error": f"rank {rank} was lost"}) for rank in range(ranks)]
        failures = [report["error"] for report in reports if "error" in report]
        if failures:
            raise StoreError("; ".join(failures))
        progress = Progress(seed=0, updates=tokens // STEP)
        self.parent = commit.commit(reports, parent=self.parent, progress=progress)
        self.tidy(run, number)

    def peer(self, commit: CheckpointWriter, rank: int, gathered: dict[int, ShardReport]) -> Actor:
        """Start another rank, which writes its shard and reports to rank 0."""

        def write() -> None:
            ranks = self.plan.ranks
            try:
                mine = pieces(commit.tokens, commit.lineage.attempt, rank, ranks)
                gathered[rank] = commit.write_shard(mine, rank=rank, world_size=ranks)
            except StoreError as error:
                gathered[rank] = {"error": str(error)}

        return self.world.scheduler.spawn(f"{self.plan.name} rank {rank}", write)

    def tidy(self, run: Run, number: int) -> None:
        """Run `Saver._tidy`."""
        try:
            run.store.put(keys.ledger(run.name, number), [b"{}\n"])
            self.retention.prune(run, number)
            run.journal.pack()
        except StoreError:
            self.world.store.counts["untidy"] += 1

    def beat(self, run: Run, holder: Holder, number: int) -> None:
        """Write a heartbeat, as `Reporter` does at the start."""
        heartbeat = Heartbeat(attempt=number, holder=holder, phase="step", tokens=0, time=time.time(), every=10)
        writer = BackgroundWriter(LogWriter(run.store, run.name, number), lambda: heartbeat, heartbeat.every, print)
        try:
            writer.tick(now=0.0)
        except StoreError:
            self.world.store.counts["heartbeat failed"] += 1


def read(world: World, commit: Committed) -> bool:
    """Read a whole checkpoint; returns whether it is sound."""
    misread = world.misread
    try:
        data = StoredCheckpoint(world.store, commit).read_tensor(NAME).tobytes()
    except DamageError as error:
        world.invariants.damage(commit.manifest, str(error), misread=world.misread > misread)
        return False
    world.invariants.reads(commit, data)
    return True


def operator(world: World) -> None:
    """Go back to a checkpoint, as `headway train --from-tokens` does."""
    run, random = world.run(), world.random
    holder = Holder(host="host of the operator", pid=1, started=1, launch="operator")
    try:
        tokens = random.choice([0, *(commit.tokens for commit in run.history().commits)])
        roll_back(run, tokens, holder, take_over=random.random() < 0.6)
        world.store.counts["operator done"] += 1
    except (HeldError, FencedError, StoreError, UsageError):
        world.store.counts["operator gave up"] += 1


def reader(world: World) -> None:
    """Read the newest or the oldest checkpoint several times."""
    run = world.run()
    for _ in range(3):
        try:
            history = run.history()
            if history.damaged:
                raise Violation(f"a reader sees a damaged journal: {history.damaged[0].reason}")
            if history.commits:
                read(world, history.commits[-1] if world.random.random() < 0.7 else history.commits[0])
        except StoreError:
            world.store.counts["reader failed"] += 1


def verifier(world: World) -> None:
    """Verify the run while others write."""
    for _ in range(3):
        misread = world.misread
        try:
            for result in verify(world.run()):
                if isinstance(result, Finding):
                    late = world.store.late > 0
                    world.invariants.finding(result, misread=world.misread > misread, late=late)
            world.store.counts["verified"] += 1
        except StoreError:
            world.store.counts["verify failed"] += 1


def collector(world: World) -> None:
    """Delete garbage, some time after it was listed."""
    run = world.run()
    for _ in range(2):
        try:
            for each in list(find_garbage(run)):
                world.store.delete(each.key)
        except StoreError:
            world.store.counts["collector failed"] += 1


def vandal(world: World) -> None:
    """Damage a pack: flip a bit, truncate it, or change white space in its last entry."""
    objects, store = world.invariants.objects, world.store
    turns = world.random.randint(1, 300)
    while turns and keys.pack(RUN, 0) not in objects:
        turns -= 1
        world.scheduler.pause()
    for key in [key for key in objects if key.startswith(keys.packs(RUN))]:
        data = bytearray(objects[key])
        match world.random.choice(("bit", "end", "space", "space")):
            case "bit":
                data[world.random.randrange(len(data))] ^= 1 << world.random.randrange(8)
            case "end":
                del data[world.random.randrange(len(data)) :]
            case "space":
                entries = json.loads(data)
                data = bytearray(json.dumps([*entries[:-1], entries[-1].replace(": ", ":  ", 1)], indent=0).encode())
        if data != objects[key]:
            objects[key] = bytes(data)
            world.invariants.spoiled.add(key)
            store.counts["pack damaged"] += 1
            world.scheduler.note("DAMAGES", key)
