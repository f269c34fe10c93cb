"""Saving and restoring: the cost of a save for concurrent training, and the speed of a restore to the device."""

import statistics
import tempfile
import time
from collections.abc import Iterator

from torch.distributed.tensor import DTensor

from bench.card.device import Device
from bench.card.lab import Lab, single_process_group
from bench.card.numbers import Row, digest
from bench.card.utilisation import M350, REHEARSAL_CELLS, Cell, plan
from headway import recipe as recipes
from headway.checkpoint.collectives import Collectives
from headway.checkpoint.commit import Lineage
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.retention import Retention
from headway.checkpoint.saver import Saver
from headway.objectstore import open_store
from headway.runs import Run, this_process
from headway.train.compute import arithmetic
from headway.train.host.preemption import Preemption

STEPS_ALONE, SAVES = 4, 2


def saving(device: Device) -> Iterator[Row]:
    """Steps without saves, saves with concurrent steps, then a restore whose bits are compared."""
    cell = Cell(M350, 2048, many=False, tokens=65_536) if device.cuda else REHEARSAL_CELLS[0]
    with single_process_group() as group, tempfile.TemporaryDirectory() as folder:
        lab = Lab(plan(cell), device, group)
        run, ranks = Run(open_store(folder), "bench"), Collectives(group)
        run.freeze(lab.recipe)
        number = run.claim(this_process("bench"), lab.recipe, "synthetic").seq
        about = arithmetic.environment(lab.recipe, device.torch)
        lineage = Lineage(number, recipes.digest(lab.recipe), "synthetic", about)
        commits: list[float] = []
        saver = Saver(
            run, lineage, ranks, retention=Retention(keep=2), on_commit=lambda *_: commits.append(time.perf_counter())
        )
        lanes = lab.lanes(many=False)
        for _ in range(2):
            lab.train(lanes)
        step_alone = statistics.median(device.timed(lambda: lab.train(lanes)) for _ in range(STEPS_ALONE))
        size = state_bytes(lab)
        for turn in range(SAVES):
            saved = fingerprint(lab)
            yield {"name": f"save {turn + 1} of {size / 1e9:.2f} GB to a folder"} | save(
                lab, saver, commits, step_alone
            )
        saver.close()
        yield restore(lab, run, saved)


def save(lab: Lab, saver: Saver, commits: list[float], step_alone: float) -> Row:
    """One save, with concurrent steps until it is durable; each step waits for the copy before its update."""
    lanes, turn = lab.lanes(many=False), len(commits)
    lab.device.wait()
    began = time.perf_counter()
    saver.save(turn, lab.state.tensors(), lab.state.progress(), "")
    stall, steps, elapsed = time.perf_counter() - began, 0, 0.0
    while saver.busy or not steps:
        gradient, _ = lab.step.forward_backward(lanes, Preemption())
        wait_started = time.perf_counter()
        saver.await_copy()
        stall += time.perf_counter() - wait_started
        lab.step.apply(0, gradient)
        lab.device.wait()
        steps, elapsed = steps + 1, time.perf_counter() - began
    saver.wait()
    durable, extra = commits[-1] - began, elapsed - steps * step_alone
    return {
        "stall_s": stall, "durable_s": durable, "gb_s": state_bytes(lab) / durable / 1e9, "calm_step_s": step_alone,
        "extra_s": extra, "share_at_a_minute": extra / 60,
    }  # fmt: skip


def state_bytes(lab: Lab) -> int:
    """Size of parameters and moments [bytes]."""
    return sum(tensor.numel() * tensor.element_size() for tensor in lab.state.tensors().values())


def fingerprint(lab: Lab) -> str:
    """SHA-256 of parameters and moments."""
    return digest([value.to_local() if isinstance(value, DTensor) else value for value in lab.state.tensors().values()])


def restore(lab: Lab, run: Run, saved: str) -> Row:
    """Restore the newest checkpoint to the device; its bits must equal the saved ones."""
    stored = StoredCheckpoint(run.store, run.history().commits[-1])
    seconds, size = lab.device.timed(lambda: lab.state.load(stored)), state_bytes(lab)
    what = f"restore of {size / 1e9:.2f} GB, verified"
    return {"name": what, "seconds": seconds, "gb_s": size / seconds / 1e9, "good": fingerprint(lab) == saved}
