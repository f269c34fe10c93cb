"""Model FLOPs utilization of common shapes, interleaved with a plain FSDP2 + compile + flash loop."""

import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional

from bench.card.device import Device
from bench.card.lab import LLAMA_8B, Lab, Shape, single_process_group
from bench.card.numbers import Row
from bench.plain import plain_step
from headway.model import ARCHITECTURES, Documents
from headway.model.memory import GIB, estimate_memory
from headway.train.compute.transfer import DeviceBatch

M350 = Shape("350M", "slm-350m.yaml")
B1 = Shape("1.3B", "slm-1b.yaml")
B8 = Shape("8B", "slm-1b.yaml", (("model", LLAMA_8B), ("data.tokenizer.vocabulary", 128_256)))
TINY = Shape("tiny", "quickstart.yaml", (("data.tokenizer.vocabulary", 512),))
ROUNDS, WARM_UP = 3, 1


@dataclass(frozen=True)
class Cell:
    """One measured setting."""

    shape: Shape
    sequence: int
    many: bool
    """Many documents per row instead of one."""
    tokens: int
    """Tokens of a micro-batch."""
    recompute: str = "none"
    layers: int | None = None
    mode: str = "fast"
    lanes: int = 1
    accumulate: int = 4
    """Micro-batches per batch."""
    chunk: int = 8192
    plain: bool = True
    """Whether to measure the plain loop too."""
    compiled: bool = True

    @property
    def name(self) -> str:
        """Name of the row in the table."""
        some = f" ({self.layers} layers)" if self.layers else ""
        text = "many documents" if self.many else "one document"
        notes = "" if (self.mode, self.lanes) == ("fast", 1) else f", {self.mode}, {self.lanes} lanes"
        batch = f"{self.recompute}, {self.tokens:,} per micro-batch{notes}"
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
REHEARSAL_CELLS = (
    Cell(TINY, 64, many=False, tokens=128, accumulate=2, compiled=False),
    Cell(TINY, 64, many=True, tokens=128, mode="bitwise", lanes=2, accumulate=2, compiled=False),
    Cell(TINY, 64, many=True, tokens=128, recompute="selective", accumulate=1, compiled=False, plain=False),
)


def utilisation(device: Device) -> Iterator[Row]:
    """Variants of one shape, then every other shape with one setting."""
    yield product(device)
    with single_process_group() as group:
        for cell in (*VARIANTS, *CELLS) if device.cuda else REHEARSAL_CELLS:
            try:
                yield measure(cell, device, group)
            except torch.OutOfMemoryError as error:
                yield {"name": cell.name, "left_out": f"out of memory: {str(error)[:80]}"}
            torch.compiler.reset()
            gc.collect()


def product(device: Device) -> Row:
    """Rate of a large matrix product on random data [operations/s]."""
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
    """Throughput of Headway's step, interleaved with the plain loop on the same model."""
    lab = Lab(plan(cell), device, group)
    loops = {"headway": lab.train} | ({"plain": PlainLoop(lab).train} if cell.plain else {})
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    began = time.perf_counter()
    device.reset_peak()
    foreseen = estimate_memory(lab.recipe, lab.vocabulary, ranks=1, half=device.cuda).total
    peak = reserved = 0
    for turn in range(WARM_UP + ROUNDS):
        lanes = lab.lanes(many=cell.many)
        for name, loop in loops.items():
            duration = device.timed(lambda loop=loop: loop(lanes))  # type: ignore[misc]  # noqa: B023 (called here)
            if turn >= WARM_UP:
                seconds[name].append(duration)
            if not turn and name == "headway":
                first = time.perf_counter() - began
                peak, reserved = device.peak()
    batch = lab.recipe.train.batch_tokens
    step = statistics.median(seconds["headway"])
    flops = ARCHITECTURES[lab.recipe.model.kind].flops
    assert flops
    cost = flops(lab.recipe.model, lab.vocabulary, cell.sequence)
    row: Row = {
        "name": cell.name,
        "tokens_s": batch / step,
        "mfu": batch / step * cost.total / device.sheet,
        "mfu_measured": batch / step * cost.total / device.measured,
        "mfu_square": batch / step * (cost.total + cost.attention) / device.sheet,
        "step_s": step,
        "first_step_s": first,
        "peak_gib": peak / GIB,
        "reserved_gib": reserved / GIB,
        "foreseen_gib": foreseen / GIB,
    }
    if cell.many:
        visible = sum(document_lengths(lanes)) / batch
        row["mfu_seen"] = (
            batch / step * (cost.total - cost.attention + cost.attention * visible / cell.sequence) / device.sheet
        )
    if cell.plain:
        row["x_plain"] = statistics.median(p / h for p, h in zip(seconds["plain"], seconds["headway"], strict=True))
    return row


def document_lengths(lanes: list[list[DeviceBatch]]) -> Iterator[int]:
    """The length of each token's document, summed per document."""
    for batch in (batch for lane in lanes for batch in lane):
        if batch.documents and batch.documents.starts is not None:
            yield int(batch.documents.starts.long().diff().square().sum())
        else:
            yield batch.inputs.numel() * batch.inputs.shape[1]


class PlainLoop:
    """A plain loop over the same compiled blocks: causal attention, compiled loss, torch's clipping.

    It computes whole logits, unless they need more than a twelfth of the memory; then it computes the loss in chunks.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.mean_loss = torch.compile(mean_loss) if lab.recipe.train.compile else mean_loss
        self.whole_logits = 4 * lab.recipe.train.micro_batch_tokens * lab.vocabulary < lab.device.memory / 12
        self.causal = Documents(None, lab.recipe.data.block_tokens)

    def train(self, lanes: list[list[DeviceBatch]]) -> None:
        """One step."""
        model = self.lab.state.model
        assert isinstance(model, FSDPModule)
        batches = [batch for lane in lanes for batch in lane]

        def loss(batch: DeviceBatch) -> Tensor:
            if self.whole_logits:
                return self.mean_loss(model(batch.inputs), batch.targets) / len(batches)
            total: Tensor = model(batch.inputs, batch.targets, self.causal)
            return total / batch.inputs.numel() / len(batches)

        plain_step(model, self.lab.state.optimizer, batches, loss)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of whole logits."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
