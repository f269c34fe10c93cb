"""The host copy of the state: correct in every bit, complete when `copied` is set, and bounded in memory."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from headway.checkpoint import manifest
from headway.checkpoint.manifest import block_checksums
from headway.checkpoint.ring import BUFFER_BYTES, BUFFERS, Bytes, Ring
from headway.checkpoint.shard import Piece
from headway.checkpoint.staging import Staging

BLOCK = 64
LENGTHS = (1, 5, 3 * BLOCK, 40, 7 * BLOCK + 13, 2 * BLOCK, BLOCK - 1, 40, 5 * BLOCK, 0, 9)
"""Lengths of pieces that share a buffer, fill one, span several, or end in the middle of a block."""


class SlowStream:
    """A device that copies only when a wait requires it. A double for a CUDA stream."""

    pinned = False

    def __init__(self) -> None:
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.done = self.marks = self.syncs = 0
        self.last = 1 << 62
        """Number of copies after which the device fails."""
        self.lock = threading.Lock()

    def sync_with_training(self) -> None:
        """Count the calls."""
        self.syncs += 1

    def activate(self) -> AbstractContextManager[Any]:
        """Do nothing."""
        return nullcontext()

    def copy(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Record a copy."""
        if len(self.pending) == self.last:
            raise RuntimeError("the device has fallen off the bus")
        self.pending.append((source, buffer))

    def record(self) -> Callable[[], None]:
        """A function that makes the copies recorded before this call."""
        upto = len(self.pending)
        self.marks += 1

        def wait() -> None:
            with self.lock:
                while self.done < upto:
                    source, buffer = self.pending[self.done]
                    buffer.copy_(source)
                    self.done += 1

        return wait

    @property
    def memory(self) -> int:
        """Distance from the first to the last byte that was a target of a copy."""
        places = [(buffer.data_ptr(), buffer.nbytes) for _, buffer in self.pending]
        return max(at + length for at, length in places) - min(at for at, _ in places)


class Allocations(TorchDispatchMode):
    """Adds up the memory that torch's operations on this thread allocate [bytes]."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count results whose memory is not that of an argument."""
        result = func(*args, **(kwargs or {}))
        known = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in known:
            self.bytes += result.untyped_storage().nbytes()
        return result


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> int:
    """Small blocks, so that a small state has many."""
    monkeypatch.setattr(manifest, "BLOCK_BYTES", BLOCK)
    return BLOCK


@pytest.fixture
def rings() -> Iterator[Callable[..., Ring]]:
    """Makes small rings."""
    made: list[Ring] = []

    def make(stream: SlowStream, buffers: int = 3, size: int = 2 * BLOCK) -> Ring:
        made.append(Ring(stream, buffers, size))
        return made[-1]

    yield make
    for ring in made:
        ring.close()


def state(*lengths: int) -> list[tuple[torch.Tensor, Bytes]]:
    """Random bytes, and arrays of the same lengths as targets."""
    return [(torch.randint(0, 256, (length,), dtype=torch.uint8), np.zeros(length, np.uint8)) for length in lengths]


@pytest.mark.usefixtures("block")
def test_a_ring_copies_every_byte_and_returns_the_checksums(rings: Callable[..., Ring]) -> None:
    """For pieces of any length, all bytes reach their targets; a second copy with other bytes does too."""
    ring = rings(SlowStream())
    for _ in range(2):
        pieces = state(*LENGTHS)
        sums = ring.copy(pieces, lambda: None)
        assert all(np.array_equal(source.numpy(), target) for source, target in pieces)
        assert sums == [block_checksums(source.numpy().data) for source, _ in pieces]


def test_a_state_of_any_size_uses_the_same_buffers(rings: Callable[..., Ring], block: int) -> None:
    """The device copies to the ring's memory only, and uses all of it."""
    stream = SlowStream()
    rings(stream, buffers=2, size=3 * block).copy(state(100 * block, *LENGTHS), lambda: None)
    assert stream.memory == 2 * 3 * block


def test_small_pieces_share_a_buffer(rings: Callable[..., Ring], block: int) -> None:
    """A buffer is drained when it is full, not once per small tensor."""
    stream = SlowStream()
    rings(stream, size=2 * block).copy(state(*[block // 4] * 16), lambda: None)
    assert stream.marks == 2 + 1


class WaitedStream(SlowStream):
    """A slow stream whose copies complete only once the sending thread waits."""

    def __init__(self) -> None:
        super().__init__()
        self.sender, self.waited = threading.current_thread(), threading.Event()

    def record(self) -> Callable[[], None]:
        """A function that waits for the sender, then copies."""
        copy = super().record()

        def wait() -> None:
            if threading.current_thread() is self.sender:
                self.waited.set()
            self.waited.wait()
            copy()

        return wait


def test_the_state_may_change_once_the_device_is_read(rings: Callable[..., Ring], block: int) -> None:
    """`on_read` is called once, after the last copy from the device."""
    stream, calls = WaitedStream(), list[int]()

    def on_read() -> None:
        calls.append(stream.done)
        stream.waited.set()

    rings(stream, buffers=2).copy(state(2 * block, block, 9), on_read)
    assert calls == [3]


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("last", [0, 1, 7])
def test_a_device_that_fails_fails_the_copy_and_spoils_no_buffer(rings: Callable[..., Ring], last: int) -> None:
    """The error propagates, `on_read` is not called, and all buffers are free for the next copy."""
    stream, calls = SlowStream(), list[int]()
    ring = rings(stream, buffers=2)
    for _ in range(2):
        stream.last = len(stream.pending) + last
        with pytest.raises(RuntimeError, match="fallen off the bus"):
            ring.copy(state(*LENGTHS), lambda: calls.append(1))
    assert not calls
    stream.last = 1 << 62
    pieces = state(*LENGTHS)
    ring.copy(pieces, lambda: None)
    assert all(np.array_equal(source.numpy(), target) for source, target in pieces)


class LostStream(SlowStream):
    """A device that fails at the second copy, just when the first one completes."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.lost = 1, threading.Event()

    def copy(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Record the first copy, and fail at the second."""
        if self.pending:
            self.lost.set()
        super().copy(source, buffer)

    def record(self) -> Callable[[], None]:
        """A function that waits until the device is lost, then copies."""
        copy = super().record()

        def wait() -> None:
            self.lost.wait()
            copy()

        return wait


def test_no_thread_drains_after_a_failed_copy(rings: Callable[..., Ring]) -> None:
    """Running drains finish before the error propagates, so that the memory can be reused."""
    pieces = state(16 << 20, 16 << 20)
    with pytest.raises(RuntimeError, match="fallen off the bus"):
        rings(LostStream(), size=16 << 20).copy(pieces, lambda: None)
    source, target = pieces[0]
    assert np.array_equal(source.numpy(), target)


def tensors(rows: int) -> dict[str, torch.Tensor]:
    """A state of several dtypes; one tensor is not contiguous."""
    return {
        "model.w": torch.randn(rows, 1024),
        "model.half": torch.randn(rows, 128).bfloat16(),
        "model.turned": torch.randn(64, 32).T,
        "optimizer.step": torch.tensor(3, dtype=torch.int64),
        "model.none": torch.zeros(0, 4),
    }


def content(pieces: list[Piece]) -> dict[str, bytes]:
    """The bytes of pieces; checks their checksums."""
    assert all(piece.checksums == block_checksums(piece.data) for piece in pieces)
    return {piece.name: bytes(piece.data) for piece in pieces}


@pytest.mark.parametrize("stream", [SlowStream, lambda: None])
def test_a_copy_takes_host_memory_for_the_state_once_and_for_a_ring(stream: Callable[[], SlowStream | None]) -> None:
    """The first copy allocates the size of the state, plus a ring for a device; later copies reuse both."""
    with Allocations():
        Staging().copy(tensors(1), is_coordinator=True)  # lets torch import what it imports late
    copy_stream = stream()
    staging, pieces, places = Staging(copy_stream), list[Piece](), list[int]()
    tracemalloc.start()
    for rows, ring in ((4096, BUFFERS * BUFFER_BYTES), (4096, 0), (6000, 0)):
        values = tensors(rows)
        size, odd = sum(tensor.nbytes for tensor in values.values()), 2 * values["model.turned"].nbytes
        staging.begin(values)
        pieces.clear()
        tracemalloc.reset_peak()
        with Allocations() as allocated:
            pieces += staging.copy(values, is_coordinator=True)
        assert staging.copied.is_set()
        assert tracemalloc.get_traced_memory()[1] <= size + (1 << 20)
        assert allocated.bytes <= (ring if copy_stream else 0) + odd
        assert sum(piece.data.nbytes for piece in pieces) == size
        places.append(np.asarray(pieces[0].data).ctypes.data)
    tracemalloc.stop()
    assert places[0] == places[1]
    staging.close()
    if copy_stream:
        assert copy_stream.syncs == 3


@pytest.mark.parametrize("device", ["cpu", "slow", "cuda"])
def test_a_copy_holds_the_state_of_its_moment(device: str) -> None:
    """The copy has the values of the moment it began, even if the state changes once `copied` is set."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    staging = Staging(SlowStream() if device == "slow" else None)
    for rows in (512, 300):
        values = {name: tensor.to("cpu" if device == "slow" else device) for name, tensor in tensors(rows).items()}
        expected = {
            name: tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
            for name, tensor in values.items()
            if tensor.numel()
        }
        staging.begin(values)
        pieces: list[Piece] = []
        beside = threading.Thread(
            target=lambda values=values, pieces=pieces: pieces.extend(staging.copy(values, is_coordinator=True))
        )
        beside.start()
        staging.copied.wait()
        for tensor in values.values():
            tensor.fill_(7)
        beside.join()
        assert content(pieces) == expected
    staging.close()


def test_a_failed_copy_does_not_block_training() -> None:
    """`copied` is set in spite of the failure."""
    stream = SlowStream()
    stream.last = 0
    staging, values = Staging(stream), tensors(4)
    staging.begin(values)
    assert not staging.copied.is_set()
    with pytest.raises(RuntimeError, match="fallen off the bus"):
        staging.copy(values, is_coordinator=True)
    assert staging.copied.is_set()
    staging.close()
