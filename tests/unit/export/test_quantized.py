"""An 8-bit model: its rounded weights, and its comparison with the original."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.unit.full_disk import short_files

from headway import export
from headway.errors import HeadwayError, UsageError
from headway.export.sample import load

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


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def change(folder: Path, **values: object) -> None:
    """Change the configuration of a model."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


CONFIGS: dict[str, dict[str, object]] = {
    "layers without end": {"num_hidden_layers": 10**8},
    "more layers than weights": {"num_hidden_layers": 3},
    "more modules than any model": {"num_hidden_layers": 9999},
    "a vocabulary without end": {"vocab_size": 10**12},
    "a vocabulary beyond integers": {"vocab_size": 10**30},
    "a vocabulary that is a list": {"vocab_size": [1, 2]},
    "another vocabulary": {"vocab_size": 301},
    "no vocabulary": {"vocab_size": 0},
    "fewer layers than none": {"num_hidden_layers": -1},
    "no heads": {"num_attention_heads": 0},
    "a layer type that nobody knows": {"layer_types": ["sliding_attention", "x"]},
    "a width of text": {"hidden_size": "wide"},
    "a token of text": {"eos_token_id": "</s>"},
    "a token beyond the vocabulary": {"eos_token_id": 300},
    "tokens of text": {"eos_token_id": ["a"]},
    "no context": {"max_position_embeddings": 0},
    "a context of text": {"max_position_embeddings": "long"},
    "an unknown model": {"model_type": "nothing", "architectures": ["Nothing"]},
    "a model that is a list": {"model_type": ["llama"]},
    "an unknown type": {"dtype": "float7"},
    "layers of nothing": {"rope_parameters": 3},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_fits_no_model_is_refused(copy: Path, name: str) -> None:
    """In one line, and before memory is taken for what the weights do not hold."""
    change(copy, **CONFIGS[name])
    with pytest.raises(UsageError) as caught:
        export.quantize(copy, copy.parent / "out")
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
    assert not (copy.parent / "out").exists()


def test_no_code_of_a_model_is_run(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked, and nothing runs, whether the check sees the code or only transformers does."""
    (copy / "code.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\nclass Config: pass\n")
    change(copy, model_type="unknown", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Config"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UsageError, match="auto_map names code to run"):
        export.quantize(copy, copy.parent / "out")
    monkeypatch.setattr("headway.export.sample.check_model_folder", lambda _: {})
    with pytest.raises(UsageError, match="is not a model that can be used"):
        load(copy)
    assert not (copy / "ran").exists()


def test_only_weights_that_cannot_run_code_are_loaded(copy: Path) -> None:
    """A pickle beside the configuration is not opened."""
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match="has no weights in safetensors"):
        export.quantize(copy, copy.parent / "out")
    with pytest.raises(UsageError, match="can be used: OSError"):
        load(copy)


def test_weights_that_are_missing_or_damaged_are_refused(copy: Path) -> None:
    """They would be random numbers."""
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks weights .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load(copy)
    (copy / "model.safetensors").write_bytes(b"\xff" * 1000)
    with pytest.raises(UsageError, match="is not a model that can be used"):
        load(copy)


def test_settings_of_the_sampler_are_not_taken_from_the_model(original: Path, copy: Path) -> None:
    """A thousand beams would take a thousand times the memory."""
    (copy / "generation_config.json").write_text('{"num_beams": 1000, "num_return_sequences": 1000}')
    assert export.quantize(copy, copy.parent / "out") == export.quantize(original, copy.parent / "same")


def test_a_full_disk_leaves_no_quantized_model(original: Path, tmp_path: Path) -> None:
    """Not the files that did fit either."""
    with pytest.raises(HeadwayError, match=r"out: cannot be written: .*File too large"), short_files(10_000):
        export.quantize(original, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
