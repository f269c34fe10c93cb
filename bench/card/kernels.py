"""Time of a step by kernel, and the share of time in which the device is idle."""

from collections import defaultdict
from collections.abc import Iterator

from torch.profiler import profile

from bench.card.device import Device
from bench.card.lab import Lab, single_process_group
from bench.card.numbers import Row
from bench.card.utilisation import B1, REHEARSAL_CELLS, Cell, plan

TOP_KERNELS = 10
STEPS = 2


def kernels(device: Device) -> Iterator[Row]:
    """Shares of wall-clock time in some steps of the 1.3B shape, with many documents per row."""
    cell = Cell(B1, 2048, many=True, tokens=16_384) if device.cuda else REHEARSAL_CELLS[-1]
    with single_process_group() as group:
        lab = Lab(plan(cell), device, group)
        lanes = [lab.lanes(many=True) for _ in range(STEPS)]
        for each in lanes:
            lab.train(each)
        with profile(activities=[device.activity]) as profiler:
            wall = device.timed(lambda: [lab.train(each) for each in lanes])
    spans: list[tuple[float, float]] = []
    names: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        if device.cuda == (event.device_type.name == "CUDA"):
            spans.append((event.time_range.start, event.time_range.end))
            names[event.name] += event.time_range.elapsed_us() / 1e6
    busy = union_length(spans) / 1e6
    yield {"name": f"{STEPS} steps of {cell.name}", "wall_s": wall, "gaps": max(0.0, 1 - busy / wall)}
    for name, seconds in sorted(names.items(), key=lambda each: -each[1])[:TOP_KERNELS]:
        yield {"name": name[:110], "share": seconds / wall}


def union_length(spans: list[tuple[float, float]]) -> float:
    """Length of the union of time spans."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
