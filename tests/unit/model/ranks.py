"""One of several real gloo ranks: `ranks.py RANK WORLD FOLDER`. Rank 0 writes the results to FOLDER.

Run by test_weights.py and not collected by pytest.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from headway.model import Documents, initialize
from headway.model.llama.decoder import Decoder
from headway.recipe import Llama

MODEL = Llama(layers=2, width=40, heads=4, kv_heads=2, ffn_width=56, tie_embeddings=False)
VOCABULARY = 67
SEED = 5


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and documents, [6, 16] each."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = torch.randint(0, VOCABULARY, (2, 6, 16), generator=generator)
    documents = torch.randint(0, 2, (6, 16), generator=generator).cumsum(1).int()
    return inputs, targets, documents


def sharded(mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> Decoder:
    """The model as training builds it: on the meta device, sharded, filled with NaN, initialized."""
    with torch.device("meta"):
        model = Decoder(MODEL, VOCABULARY, loss_chunk_tokens=20)
    for part in [*model.blocks, model]:
        unit = fully_shard(part, mesh=mesh, mp_policy=policy)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        parameter.to_local().detach().fill_(float("nan"))
    initialize(model, SEED)
    return model


def whole(tensor: Tensor | None) -> Tensor:
    """The full tensor of a sharded one."""
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor().detach().contiguous()


def main() -> None:
    """Write parameters, loss and gradients for each world size, in fp32 and in bf16."""
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    meshes = {size: DeviceMesh("cpu", list(range(size))) for size in range(2, world + 1)}
    inputs, targets, documents = batch()
    for size, mesh in meshes.items():
        if rank >= size:
            continue
        for word, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            model = sharded(
                mesh, MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
            )
            assert isinstance(model, FSDPModule)
            results = {f"parameter.{name}": whole(value) for name, value in model.named_parameters()}
            loss = model(inputs[rank::size], targets[rank::size], Documents.from_numbers(documents[rank::size].numpy()))
            loss.backward()
            results |= {f"gradient.{name}": whole(value.grad) for name, value in model.named_parameters()}
            total = loss.detach().clone()
            dist.all_reduce(total, group=mesh.get_group())
            if rank == 0:
                save_file({**results, "loss": total}, folder / f"{size}-{word}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
