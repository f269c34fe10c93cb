"""Initial parameters, and the decoder under FSDP2 on real gloo ranks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from headway.model import Documents, initialize
from headway.model.llama.decoder import Decoder
from headway.recipe import Llama

MODEL = Llama(layers=2, width=40, heads=4, kv_heads=2, ffn_width=56, tie_embeddings=False)
WORLD = 3
WORLDS = range(2, WORLD + 1)
SCRIPT = Path(__file__).with_name("ranks.py")


def whole_model(seed: int) -> Decoder:
    """The model of ranks.py, in one process without torch.distributed."""
    with torch.device("meta"):
        model = Decoder(MODEL, 67, loss_chunk_tokens=20)
    model.to_empty(device="cpu")
    initialize(model, seed)
    return model


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """Results of the gloo ranks, by `<world size>-<precision>`."""
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(Path(__file__).parents[3] / "platform"), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(WORLD), str(folder)],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(WORLD)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * WORLD
    return {file.stem: load_file(file) for file in folder.glob("*.safetensors")}


def plain_step() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of the batch of ranks.py, in one process and fp32, from whole logits."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = torch.randint(0, 67, (2, 6, 16), generator=generator)
    documents = torch.randint(0, 2, (6, 16), generator=generator).cumsum(1).int()
    model = whole_model(5)
    logits = model(inputs, documents=Documents.from_numbers(documents.numpy())).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {name: gradient(value) for name, value in model.named_parameters()}


def gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter."""
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.slow
def test_first_parameters_are_equal_bit_for_bit_on_one_two_and_three_ranks(ranks: Any) -> None:
    """Sharding changes no bits, even if the rows do not divide evenly."""
    alone = dict(whole_model(5).named_parameters())
    for size in WORLDS:
        results = {key[10:]: value for key, value in ranks[f"{size}-fp32"].items() if key.startswith("parameter.")}
        assert results.keys() == alone.keys()
        assert [name for name in alone if not torch.equal(alone[name], results[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-6), ("bf16", 2e-2)])
@pytest.mark.parametrize("size", WORLDS)
def test_sharded_training_step_agrees_with_one_process(ranks: Any, size: int, precision: str, tolerance: float) -> None:
    """Under FSDP2 loss and gradients equal those of one process, up to the precision."""
    results = ranks[f"{size}-{precision}"]
    loss, gradients = plain_step()
    assert torch.allclose(results["loss"], loss, rtol=tolerance / 10 + 1e-6)
    for name, expected in gradients.items():
        error = (results[f"gradient.{name}"] - expected).norm() / expected.norm()
        assert error < tolerance, (name, error)


def test_initialize_fills_a_model_from_the_meta_device() -> None:
    """No element keeps the value of the uninitialized memory."""
    with torch.device("meta"):
        model = Decoder(MODEL, 67, loss_chunk_tokens=20)
    model.to_empty(device="cpu")
    state = [*model.parameters(), *model.buffers()]
    for tensor in state:
        tensor.detach().fill_(float("nan"))
    initialize(model, 1)
    assert all(tensor.isfinite().all() for tensor in state)
    assert model(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()


def test_seed_and_name_decide_a_parameter_and_nothing_else_does() -> None:
    """Equal seeds give equal bits for any global generator and threads; other seeds or names give other bits."""
    torch.manual_seed(1)
    first = dict(whole_model(7).named_parameters())
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    again = dict(whole_model(7).named_parameters())
    torch.set_num_threads(threads)
    other = dict(whole_model(8).named_parameters())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not torch.equal(first["head.weight"], first["embedding.weight"])


def test_noise_is_narrower_where_it_enters_the_residual_stream() -> None:
    """Standard deviation 0.02 for matrices, 0.02/sqrt(2 layers) for those that write to the stream; norms are 1."""
    for name, value in whole_model(1).named_parameters():
        if value.ndim == 1:
            assert (value == 1).all(), name
        else:
            into_stream = name.endswith(("output.weight", "down.weight"))
            assert value.std().item() == pytest.approx(0.01 if into_stream else 0.02, rel=0.08), name
