"""Utilisation: model FLOPs of shapes that people train, beside a plain FSDP2 + compile + flash loop, in turn."""

import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from bench.card.device import Device
from bench.card.lab import LLAMA_8B, Lab, Shape, alone
from bench.card.numbers import Row
from headway.model import Documents, flops_per_token
from headway.model.memory import GIB, foresee
from headway.train.transfer import DeviceBatch

M350 = Shape("350M", "slm-350m.yaml")
B1 = Shape("1.3B", "slm-1b.yaml")
B8 = Shape("8B", "slm-1b.yaml", (("model", LLAMA_8B), ("data.tokenizer.vocabulary", 128_256)))
TINY = Shape("tiny", "quickstart.yaml", (("data.tokenizer.vocabulary", 512),))
ROUNDS, WARM_UP = 3, 1


@dataclass(frozen=True)
class Cell:
    """A setting that is measured."""

    shape: Shape
    sequence: int
    many: bool
    tokens: int
    """Of a micro-batch."""
    recompute: str = "none"
    layers: int | None = None
    mode: str = "fast"
    lanes: int = 1
    accumulate: int = 4
    """Micro-batches in a batch."""
    chunk: int = 8192
    plain: bool = True
    """Whether the plain loop is measured beside it."""
    compiled: bool = True

    @property
    def name(self) -> str:
        """What it is, in a line of the table."""
        some = f" ({self.layers} layers)" if self.layers else ""
        text = "many documents" if self.many else "one document"
        notes = "" if (self.mode, self.lanes) == ("fast", 1) else f", {self.mode}, {self.lanes} lanes"
        batch = f"{self.recompute}, {self.tokens:,} a micro-batch{notes}"
        return f"{self.shape.name}{some}, {self.sequence:,}, {text}, {batch}"


VARIANTS = (
    Cell(B1, 2048, many=False, tokens=16_384),
    Cell(B1, 2048, many=False, tokens=16_384, mode="bitwise", plain=False),
    Cell(B1, 2048, many=True, tokens=16_384),
    Cell(B1, 2048, many=True, tokens=16_384, mode="bitwise", plain=False),
    Cell(B1, 2048, many=True, tokens=16_384, mode="bitwise", lanes=4, plain=False),
    Cell(B1, 2048, many=False, tokens=32_768, recompute="selective", plain=False),
)
CELLS = (
    Cell(M350, 2048, many=False, tokens=65_536),
    Cell(B8, 8192, many=False, tokens=16_384, layers=7, chunk=4096),
    Cell(M350, 2048, many=True, tokens=65_536, plain=False),
    Cell(B8, 2048, many=True, tokens=16_384, layers=7, chunk=4096, plain=False),
    Cell(B1, 8192, many=False, tokens=16_384),
    Cell(B8, 2048, many=False, tokens=16_384, layers=7, chunk=4096),
    Cell(B8, 8192, many=True, tokens=16_384, layers=7, chunk=4096, plain=False),
    Cell(B1, 8192, many=True, tokens=16_384, plain=False),
    Cell(M350, 8192, many=False, tokens=65_536),
    Cell(M350, 8192, many=True, tokens=65_536, plain=False),
)
REHEARSED = (
    Cell(TINY, 64, many=False, tokens=128, accumulate=2, compiled=False),
    Cell(TINY, 64, many=True, tokens=128, mode="bitwise", lanes=2, accumulate=2, compiled=False),
    Cell(TINY, 64, many=True, tokens=128, recompute="selective", accumulate=1, compiled=False, plain=False),
)


def utilisation(device: Device) -> Iterator[Row]:
    """The variants of one shape, then every other shape at its setting."""
    yield product(device)
    with alone() as group:
        for cell in (*VARIANTS, *CELLS) if device.cuda else REHEARSED:
            try:
                yield measure(cell, device, group)
            except torch.OutOfMemoryError as error:
                yield {"name": cell.name, "left_out": f"out of memory: {str(error)[:80]}"}
            torch.compiler.reset()
            gc.collect()


def product(device: Device) -> Row:
    """The rate of a large matrix product on random data [operations/s]."""
    size = 8192 if device.cuda else 256
    left, right = (torch.randn(size, size, device=device.torch, dtype=torch.bfloat16) for _ in range(2))
    left @ right
    seconds = statistics.median(device.timed(lambda: [left @ right for _ in range(10)]) / 10 for _ in range(5))
    rate = 2 * size**3 / seconds
    device.measured = rate
    return {"name": f"matrix product {size}^3, bf16", "tflops": rate / 1e12, "of_sheet": rate / device.sheet}


def plan(cell: Cell) -> Any:
    """The recipe of a cell."""
    changes: dict[str, Any] = {
        "data__block_tokens": cell.sequence,
        "model__attention": "document",
        "train__micro_batch_tokens": cell.tokens,
        "train__batch_tokens": cell.tokens * cell.accumulate,
        "train__lanes": cell.lanes,
        "train__compile": cell.compiled,
        "train__determinism": cell.mode,
        "train__loss_chunk_tokens": cell.chunk,
        "train__activation_checkpointing": cell.recompute,
        "train__tokens": cell.tokens * cell.accumulate * 1000,
        "train__schedule": {"kind": "cosine"},
        "machine__reshard": False,
    }
    if cell.layers:
        changes["model__layers"] = cell.layers
    return cell.shape.plan(**changes)


def measure(cell: Cell, device: Device, group: dist.ProcessGroup) -> Row:
    """Tokens a second of Headway's step, and of the plain loop over the same model in turn."""
    lab = Lab(plan(cell), device, group)
    loops = {"headway": lab.train} | ({"plain": Plain(lab).train} if cell.plain else {})
    taken: dict[str, list[float]] = {name: [] for name in loops}
    began = time.perf_counter()
    device.forget_peak()
    foreseen = foresee(lab.recipe, lab.vocabulary, ranks=1, half=device.cuda).total
    peak = reserved = 0
    for turn in range(WARM_UP + ROUNDS):
        lanes = lab.lanes(many=cell.many)
        for name, loop in loops.items():
            seconds = device.timed(lambda loop=loop: loop(lanes))  # type: ignore[misc]  # noqa: B023 (called here)
            if turn >= WARM_UP:
                taken[name].append(seconds)
            if not turn and name == "headway":
                first = time.perf_counter() - began
                peak, reserved = device.peak()
    batch = lab.recipe.train.batch_tokens
    seconds = statistics.median(taken["headway"])
    cost = flops_per_token(lab.recipe.model, lab.vocabulary, cell.sequence)
    row: Row = {
        "name": cell.name,
        "tokens_s": batch / seconds,
        "mfu": batch / seconds * cost.total / device.sheet,
        "mfu_measured": batch / seconds * cost.total / device.measured,
        "mfu_square": batch / seconds * (cost.total + cost.attention) / device.sheet,
        "step_s": seconds,
        "first_step_s": first,
        "peak_gib": peak / GIB,
        "reserved_gib": reserved / GIB,
        "foreseen_gib": foreseen / GIB,
    }
    if cell.many:
        seen = sum(lengths(lanes)) / batch
        row["mfu_seen"] = (
            batch / seconds * (cost.total - cost.attention + cost.attention * seen / cell.sequence) / device.sheet
        )
    if cell.plain:
        row["x_plain"] = statistics.median(p / h for p, h in zip(taken["plain"], taken["headway"], strict=True))
    return row


def lengths(lanes: list[list[DeviceBatch]]) -> Iterator[int]:
    """The length of the document that each token is in, summed by document."""
    for batch in (batch for lane in lanes for batch in lane):
        if batch.documents and batch.documents.starts is not None:
            yield int(batch.documents.starts.long().diff().square().sum())
        else:
            yield batch.inputs.numel() * batch.inputs.shape[1]


class Plain:
    """The loop that one writes first, over the same compiled blocks: causal attention, compiled loss, torch's clipping.

    Its logits are whole, unless they would take more than a twelfth of the memory: then its loss comes in chunks, too.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.loss = torch.compile(mean_loss) if lab.recipe.train.compile else mean_loss
        self.whole = 4 * lab.recipe.train.micro_batch_tokens * lab.vocabulary < lab.device.memory / 12
        self.causal = Documents(None, lab.recipe.data.block_tokens)

    def train(self, lanes: list[list[DeviceBatch]]) -> None:
        """One batch."""
        model, adam = self.lab.state.model, self.lab.state.optimizer
        batches = [batch for lane in lanes for batch in lane]
        for index, batch in enumerate(batches):
            model.set_requires_gradient_sync(index == len(batches) - 1)  # type: ignore[operator]
            if self.whole:
                loss = self.loss(model(batch.inputs), batch.targets) / len(batches)
            else:
                loss = model(batch.inputs, batch.targets, self.causal) / batch.inputs.numel() / len(batches)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of whole logits."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
