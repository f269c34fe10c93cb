"""An 8-bit model: its rounded weights, and its comparison with the original."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from headway import export
from headway.errors import UsageError

STEPS = 127.5
"""Steps from zero to the largest weight of a channel."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose channels differ in size."""
    folder = tmp_path_factory.mktemp("model") / "original"
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5 * torch.rand(len(parameter), 1) + 1)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def quantized(original: Path) -> Path:
    """The same model in 8 bits."""
    export.quantize(original, original.parent / "quantized")
    return original.parent / "quantized"


def test_every_linear_layer_is_rounded_to_the_nearest_step(original: Path, quantized: Path) -> None:
    """Weights move by half a step per output channel at most; embeddings, norms and the output layer are unchanged."""
    before, after = load_file(original / "model.safetensors"), load_file(quantized / "model.safetensors")
    rounded = [name for name in before if name.endswith("proj.weight")]
    assert len(rounded) == 14
    for name in rounded:
        scale = after[f"{name}_scale"]
        assert (after[name].dtype, scale.shape) == (torch.int8, (len(before[name]), 1))
        assert torch.allclose(scale.squeeze(), before[name].abs().amax(1) / STEPS)
        assert ((after[name] * scale - before[name]).abs() <= scale * 0.501).all()
    for name in before.keys() - set(rounded):
        assert torch.equal(before[name], after[name])


def test_transformers_reads_the_quantized_model(original: Path, quantized: Path) -> None:
    """The quantized model computes nearly what the original does; the tokenizer is copied."""
    tokens = torch.arange(1, 33).unsqueeze(0)
    models = [transformers.AutoModelForCausalLM.from_pretrained(folder) for folder in (original, quantized)]
    with torch.inference_mode():
        before, after = (model(tokens).logits for model in models)
    assert 0 < (before - after).norm() / before.norm() < 0.1
    assert (quantized / "tokenizer.json").read_text() == "{}"


def test_the_comparison_measures_agreement_loss_and_size(original: Path, tmp_path: Path) -> None:
    """The models mostly agree, their losses differ a little, and the quantized one is smaller."""
    comparison = export.quantize(original, tmp_path / "out")
    assert comparison.positions == 16 * 63
    assert 0.5 < comparison.agreement < 1
    assert comparison.loss != comparison.original_loss
    assert abs(comparison.loss - comparison.original_loss) < 0.1
    assert comparison.bytes == (tmp_path / "out" / "model.safetensors").stat().st_size < comparison.original_bytes


def test_the_same_model_gives_the_same_files(original: Path, quantized: Path, tmp_path: Path) -> None:
    """Publishing it again therefore makes no new version; torch's random state is unchanged."""
    state = torch.random.get_rng_state()
    export.quantize(original, tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state)
    for path in quantized.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_unusable_originals_and_directories_are_refused(original: Path, quantized: Path, tmp_path: Path) -> None:
    """A folder without a model, a quantized model, and a non-empty directory are refused."""
    with pytest.raises(UsageError, match=r"no config\.json"):
        export.quantize(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="quantized already"):
        export.quantize(quantized, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        export.quantize(original, tmp_path / "full")
