"""The copy that a save works from: right in every bit, taken when it says so, and bounded in host memory."""

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
"""Pieces that share a buffer, fill one, are cut over several, or end in the middle of a block."""


class SlowRoute:
    """A device whose copies are made when they are waited for, and not before. A double for a GPU's stream."""

    pinned = False

    def __init__(self) -> None:
        self.sent: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.made = self.marks = self.followed = 0
        self.last = 1 << 62
        """Copies after which the device is gone."""
        self.lock = threading.Lock()

    def follow(self) -> None:
        """Count the moments."""
        self.followed += 1

    def own(self) -> AbstractContextManager[Any]:
        """Nothing is computed here."""
        return nullcontext()

    def send(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Note what is to be copied."""
        if len(self.sent) == self.last:
            raise RuntimeError("the device has fallen off the bus")
        self.sent.append((source, buffer))

    def mark(self) -> Callable[[], None]:
        """Copy, in order, all that was sent before now."""
        upto = len(self.sent)
        self.marks += 1

        def wait() -> None:
            with self.lock:
                while self.made < upto:
                    source, buffer = self.sent[self.made]
                    buffer.copy_(source)
                    self.made += 1

        return wait

    @property
    def memory(self) -> int:
        """From the first byte that was ever copied to, to the last."""
        places = [(buffer.data_ptr(), buffer.nbytes) for _, buffer in self.sent]
        return max(at + length for at, length in places) - min(at for at, _ in places)


class Allocations(TorchDispatchMode):
    """Adds up what torch's operations take new memory for [bytes]; threads of others are not seen."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See what an operation returns that none of its arguments was."""
        result = func(*args, **(kwargs or {}))
        known = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in known:
            self.bytes += result.untyped_storage().nbytes()
        return result


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks so short that a small state has many."""
    monkeypatch.setattr(manifest, "BLOCK_BYTES", BLOCK)
    return BLOCK


@pytest.fixture
def rings() -> Iterator[Callable[..., Ring]]:
    """Makes small rings."""
    made: list[Ring] = []

    def make(route: SlowRoute, buffers: int = 3, size: int = 2 * BLOCK) -> Ring:
        made.append(Ring(route, buffers, size))
        return made[-1]

    yield make
    for ring in made:
        ring.close()


def state(*lengths: int) -> list[tuple[torch.Tensor, Bytes]]:
    """Random bytes, and rooms for them."""
    return [(torch.randint(0, 256, (length,), dtype=torch.uint8), np.zeros(length, np.uint8)) for length in lengths]


@pytest.mark.usefixtures("block")
def test_a_ring_brings_every_byte_with_the_checksums_of_its_blocks(rings: Callable[..., Ring]) -> None:
    """Whatever the lengths of pieces, all bytes arrive where they belong, and again with other contents."""
    ring = rings(SlowRoute())
    for _ in range(2):
        pieces = state(*LENGTHS)
        sums = ring.bring(pieces, lambda: None)
        assert all(np.array_equal(source.numpy(), target) for source, target in pieces)
        assert sums == [block_checksums(source.numpy().data) for source, _ in pieces]


def test_a_state_of_any_size_goes_through_the_same_buffers(rings: Callable[..., Ring], block: int) -> None:
    """Nothing is copied to but the ring's own memory, and all of it is used."""
    route = SlowRoute()
    rings(route, buffers=2, size=3 * block).bring(state(100 * block, *LENGTHS), lambda: None)
    assert route.memory == 2 * 3 * block


def test_small_pieces_share_a_buffer(rings: Callable[..., Ring], block: int) -> None:
    """A buffer travels when it is full, not once for each of the many small tensors of a model."""
    route = SlowRoute()
    rings(route, size=2 * block).bring(state(*[block // 4] * 16), lambda: None)
    assert route.marks == 2 + 1


class WaitedRoute(SlowRoute):
    """The same, but nothing arrives for the hands before the thread that sends waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.sender, self.waited = threading.current_thread(), threading.Event()

    def mark(self) -> Callable[[], None]:
        """Wait for the sender, then copy."""
        copy = super().mark()

        def wait() -> None:
            if threading.current_thread() is self.sender:
                self.waited.set()
            self.waited.wait()
            copy()

        return wait


def test_the_state_is_taken_once_all_of_it_has_left_the_device(rings: Callable[..., Ring], block: int) -> None:
    """`taken` is called once, and not before the last transfer has been made."""
    route, said = WaitedRoute(), list[int]()

    def taken() -> None:
        said.append(route.made)
        route.waited.set()

    rings(route, buffers=2).bring(state(2 * block, block, 9), taken)
    assert said == [3]


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("last", [0, 1, 7])
def test_a_device_that_fails_fails_the_copy_and_spoils_no_buffer(rings: Callable[..., Ring], last: int) -> None:
    """The error comes through, the state is not said to be taken, and the next copy finds every buffer."""
    route, said = SlowRoute(), list[int]()
    ring = rings(route, buffers=2)
    for _ in range(2):
        route.last = len(route.sent) + last
        with pytest.raises(RuntimeError, match="fallen off the bus"):
            ring.bring(state(*LENGTHS), lambda: said.append(1))
    assert not said
    route.last = 1 << 62
    pieces = state(*LENGTHS)
    ring.bring(pieces, lambda: None)
    assert all(np.array_equal(source.numpy(), target) for source, target in pieces)


class LostRoute(SlowRoute):
    """A device that is lost at the second copy, and the hands learn of the first one's arrival just then."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.lost = 1, threading.Event()

    def send(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Note the first, and fail at the second."""
        if self.sent:
            self.lost.set()
        super().send(source, buffer)

    def mark(self) -> Callable[[], None]:
        """Wait until the device is lost, then copy."""
        copy = super().mark()

        def wait() -> None:
            self.lost.wait()
            copy()

        return wait


def test_no_hand_is_at_work_after_a_copy_that_failed(rings: Callable[..., Ring]) -> None:
    """What was on its way is brought to its end before the error comes through: the memory is free again."""
    pieces = state(16 << 20, 16 << 20)
    with pytest.raises(RuntimeError, match="fallen off the bus"):
        rings(LostRoute(), size=16 << 20).bring(pieces, lambda: None)
    source, target = pieces[0]
    assert np.array_equal(source.numpy(), target)


def tensors(rows: int) -> dict[str, torch.Tensor]:
    """A state of several types; one tensor does not lie in memory as it is stored."""
    return {
        "model.w": torch.randn(rows, 1024),
        "model.half": torch.randn(rows, 128).bfloat16(),
        "model.turned": torch.randn(64, 32).T,
        "optimizer.step": torch.tensor(3, dtype=torch.int64),
        "model.none": torch.zeros(0, 4),
    }


def content(pieces: list[Piece]) -> dict[str, bytes]:
    """The bytes of pieces, whose checksums are right."""
    assert all(piece.checksums == block_checksums(piece.data) for piece in pieces)
    return {piece.name: bytes(piece.data) for piece in pieces}


@pytest.mark.parametrize("route", [SlowRoute, lambda: None])
def test_a_copy_takes_host_memory_for_the_state_once_and_for_a_ring(route: Callable[[], SlowRoute | None]) -> None:
    """The first copy takes as many bytes as the state has, and a ring for a device; the next ones take none."""
    with Allocations():
        Staging().copy(tensors(1), first=True)  # torch imports a good deal only when it is needed
    way = route()
    staging, pieces, places = Staging(way), list[Piece](), list[int]()
    tracemalloc.start()
    for rows, ring in ((4096, BUFFERS * BUFFER_BYTES), (4096, 0), (6000, 0)):
        found = tensors(rows)
        size, odd = sum(tensor.nbytes for tensor in found.values()), 2 * found["model.turned"].nbytes
        staging.begin(found)
        pieces.clear()
        tracemalloc.reset_peak()
        with Allocations() as allocated:
            pieces += staging.copy(found, first=True)
        assert staging.taken.is_set()
        assert tracemalloc.get_traced_memory()[1] <= size + (1 << 20)
        assert allocated.bytes <= (ring if way else 0) + odd
        assert sum(piece.data.nbytes for piece in pieces) == size
        places.append(np.asarray(pieces[0].data).ctypes.data)
    tracemalloc.stop()
    assert places[0] == places[1]
    staging.close()
    if way:
        assert way.followed == 3


@pytest.mark.parametrize("device", ["cpu", "slow", "cuda"])
def test_a_copy_holds_the_state_of_its_moment(device: str) -> None:
    """What is copied is what the state was when it began, whatever it becomes once it is taken."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    staging = Staging(SlowRoute() if device == "slow" else None)
    for rows in (512, 300):
        found = {name: tensor.to("cpu" if device == "slow" else device) for name, tensor in tensors(rows).items()}
        expected = {
            name: tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
            for name, tensor in found.items()
            if tensor.numel()
        }
        staging.begin(found)
        pieces: list[Piece] = []
        beside = threading.Thread(
            target=lambda found=found, pieces=pieces: pieces.extend(staging.copy(found, first=True))
        )
        beside.start()
        staging.taken.wait()
        for tensor in found.values():
            tensor.fill_(7)
        beside.join()
        assert content(pieces) == expected
    staging.close()


def test_a_copy_that_fails_holds_nobody_up() -> None:
    """`taken` is set although nothing was."""
    route = SlowRoute()
    route.last = 0
    staging, found = Staging(route), tensors(4)
    staging.begin(found)
    assert not staging.taken.is_set()
    with pytest.raises(RuntimeError, match="fallen off the bus"):
        staging.copy(found, first=True)
    assert staging.taken.is_set()
    staging.close()
