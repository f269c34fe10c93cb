"""The decoder: its loss in chunks, attention inside documents, recomputation, compilation."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from headway.errors import UsageError
from headway.model import Block, Documents, initialize
from headway.model.llama.decoder import Decoder, rotary_tables, rotate
from headway.model.recompute import Recompute
from headway.recipe import Llama

VOCABULARY = 101
TOKENS = (3, 24)


def shape(**changes: Any) -> Llama:
    """A tiny model."""
    return Llama.model_validate({"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "ffn_width": 48, **changes})


def decoder(model: Llama, chunk: int = 10) -> Decoder:
    """`model` with parameters large enough for attention to matter."""
    built = Decoder(model, VOCABULARY, loss_chunk_tokens=chunk)
    initialize(built, 1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(5.0 if parameter.ndim > 1 else 1.1)
    return built


def tokens(seed: int) -> Tensor:
    """Random tokens [3, 24]."""
    return torch.randint(0, VOCABULARY, TOKENS, generator=torch.Generator().manual_seed(seed))


def packed(*, many: bool) -> Documents:
    """The documents of `tokens`: a row each, or some of 1 to 20 tokens."""
    numbers = np.zeros(TOKENS, dtype=np.int32)
    if many:
        numbers[:, 3:], numbers[1, 4:], numbers[2, 20:] = 1, 2, 3
    return Documents.from_numbers(numbers)


def gradients(model: Decoder, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of `loss`, by name."""
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.mark.parametrize("chunk", [1, 10, 72, 500])
@pytest.mark.parametrize("tied", [True, False])
def test_chunked_loss_and_gradients_are_those_of_the_plain_loss(chunk: int, tied: bool) -> None:  # noqa: FBT001 (a case, not a switch)
    """The chunk length changes neither the summed cross-entropy nor its gradients, scaled or not."""
    model = decoder(shape(tie_embeddings=tied), chunk)
    inputs, targets = tokens(1), tokens(2)
    plain = cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
    ours = model(inputs, targets)
    assert ours.dtype == torch.float32
    assert ours.shape == ()
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=0)
    expected = gradients(model, plain / 7)
    for name, gradient in gradients(model, ours / 7).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6 * expected[name].abs().max().item())


def test_loss_without_gradients_is_the_same_bits() -> None:
    """Evaluation computes the same loss as training."""
    model = decoder(shape())
    with torch.no_grad():
        silent = model(tokens(1), tokens(2))
    assert torch.equal(silent, model(tokens(1), tokens(2)).detach())


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the most rows of any tensor whose last dimension is the vocabulary."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and check its results."""
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else [result]:
            if isinstance(item, Tensor) and item.ndim > 1 and item.shape[-1] == VOCABULARY:
                self.rows = max(self.rows, item.numel() // VOCABULARY)
        return result


def test_logits_never_exist_whole_forward_or_backward() -> None:
    """No tensor over the vocabulary has more rows than a chunk."""
    model = decoder(shape(width=8, heads=2, kv_heads=1), chunk=10)
    with Largest() as plain:
        cross_entropy(model(tokens(1)).flatten(0, 1), tokens(2).flatten()).backward()  # type: ignore[no-untyped-call]
    with Largest() as ours:
        model(tokens(1), tokens(2)).backward()
    assert plain.rows == 72
    assert ours.rows == 10


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_inside_documents_equals_each_document_alone(kv_heads: int) -> None:
    """In a packed batch each document has the logits that it has alone."""
    model = decoder(shape(kv_heads=kv_heads))
    inputs = tokens(1)
    numbers = np.array([[0] * 7 + [1] * 17, [4] * 24, [2] * 1 + [3] * 12 + [5] * 11], dtype=np.int32)
    packed = model(inputs, documents=Documents.from_numbers(numbers))
    assert not torch.allclose(packed, model(inputs), atol=1e-2)
    for row in range(3):
        for document in {*numbers[row].tolist()}:
            place = torch.from_numpy(numbers[row] == document)
            alone = model(inputs[row, place][None])[0]
            torch.testing.assert_close(packed[row, place], alone, rtol=1e-4, atol=1e-5)


def test_causal_attention_never_looks_ahead() -> None:
    """Changing a token changes no logits before it."""
    model = decoder(shape())
    inputs, changed = tokens(1), tokens(1)
    changed[:, 15] = (changed[:, 15] + 1) % VOCABULARY
    first, second = model(inputs), model(changed)
    assert torch.equal(first[:, :15], second[:, :15])
    assert not torch.allclose(first[:, 15:], second[:, 15:], atol=1e-3)


def test_loss_of_a_document_model_is_refused_without_documents() -> None:
    """A recipe with attention inside documents is never trained without them by mistake."""
    with pytest.raises(UsageError, match="pass the documents of the batch"):
        decoder(shape(attention="document"))(tokens(1), tokens(2))


@pytest.mark.parametrize("recompute", ["selective", "block"])
@pytest.mark.parametrize("many", [False, True])
def test_recomputation_changes_no_bits(recompute: Recompute, many: bool) -> None:  # noqa: FBT001 (a case, not a switch)
    """Recomputation saves memory, and changes no gradient."""
    model = decoder(shape())
    documents = packed(many=many)
    kept = gradients(model, model(tokens(1), tokens(2), documents))
    for block in model.blocks:
        assert isinstance(block, Block)
        block.recompute = recompute
    again = gradients(model, model(tokens(1), tokens(2), documents))
    assert kept
    assert all(torch.equal(kept[name], again[name]) for name in kept)


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the operation, and run it."""
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("many", [False, True])
def test_selective_recomputation_computes_no_product_and_no_attention_twice(many: bool) -> None:  # noqa: FBT001 (a case, not a switch)
    """`selective` has as many matrix products and attentions as no recomputation; `block` has more."""
    expensive = ("mm", "attend_documents" if many else "_scaled_dot_product_flash_attention_for_cpu")
    counts = {}
    for recompute in ("none", "selective", "block"):
        model = decoder(shape())
        for block in model.blocks:
            assert isinstance(block, Block)
            block.recompute = recompute
        with Count() as count:
            model(tokens(1), tokens(2), packed(many=many)).backward()
        counts[recompute] = [count.names[name] for name in expensive]
    assert counts["none"][1] == 2
    assert counts["selective"] == counts["none"]
    assert counts["block"] == [counts["none"][0] + 12, 4]  # the backward pass needs no result of the last product


def test_bfloat16_parameters_turn_positions_in_fp32() -> None:
    """With bf16 parameters, position 4096 is rotated as exactly as position 1."""
    cosine, sine = rotary_tables(4097, 8, 10_000.0, torch.device("cpu"))
    head = torch.ones(1, 4097, 1, 8, dtype=torch.bfloat16)
    turned = rotate(head, cosine, sine)
    assert turned.dtype == torch.bfloat16
    exact = torch.polar(torch.tensor(2**0.5, dtype=torch.float64), torch.tensor(4096.0 + torch.pi / 4).double())
    assert turned[0, 4096, 0, 0].item() == pytest.approx(exact.real.item(), abs=4e-3)
    assert turned[0, 4096, 0, 4].item() == pytest.approx(exact.imag.item(), abs=4e-3)


@pytest.mark.parametrize("recompute", ["none", "selective", "block"])
def test_block_traces_as_one_graph(recompute: Recompute) -> None:
    """torch.compile finds no graph break in a block, forward or backward, and gives eager's values."""
    check_compiled("aot_eager", recompute=recompute)


@pytest.mark.slow
def test_compiled_code_does_not_depend_on_the_shapes_that_came_before() -> None:
    """Whatever a process computed before, graphs fix all shapes except the number of documents."""
    torch.compiler.reset()
    graphs: list[list[Tensor]] = []

    def remember(graph: Any, _: list[Any]) -> Any:
        values = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
        graphs.append([each for each in values if isinstance(each, Tensor)])
        return graph.forward

    model = decoder(shape())
    model.compiled = True
    for block in model.blocks:
        block.compile(backend=remember, dynamic=False)
    random = np.random.default_rng(1)
    layouts = [(tokens, share) for tokens in (16, 24, 200, 16) for share in (0.0, 0.1, 0.3, 0.01, 0.5)]
    for tokens, share in layouts:
        inputs = torch.from_numpy(random.integers(0, VOCABULARY, (3, tokens)))
        numbers = (random.random((3, tokens)) < share).cumsum(1).astype(np.int32)
        model(inputs, inputs, Documents.from_numbers(numbers)).backward()
    assert len(graphs) == 6  # each length with and without documents; a CPU is not told the longest
    for graph in graphs:
        for tensor in graph:
            counts_documents = tensor.dtype == torch.int32
            assert all(isinstance(length, int) != counts_documents for length in tensor.shape), tensor.shape


@pytest.mark.slow
def test_compiled_block_equals_eager() -> None:
    """The kernels that inductor writes for a block give eager's values and gradients."""
    check_compiled("inductor", recompute="none")


def check_compiled(backend: str, *, recompute: Recompute) -> None:
    """Compare a compiled block with the eager one, with and without documents."""
    torch.compiler.reset()
    block = decoder(shape()).blocks[0]
    assert isinstance(block, Block)
    block.recompute = recompute
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    cosine, sine = rotary_tables(24, 8, 10_000.0, torch.device("cpu"))
    for documents in (packed(many=False), packed(many=True)):
        stream = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
        values = [run(stream, cosine, sine, documents.starts, documents.longest) for run in (block, compiled)]
        slopes = [torch.autograd.grad(value.square().sum(), [stream, *block.parameters()]) for value in values]
        torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-3)
