"""An exported directory, as transformers reads it."""

import json
from collections.abc import Iterator
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.unit.full_disk import short_files
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from headway import export
from headway.errors import DamageError, DataError, HeadwayError, UsageError
from headway.model import ARCHITECTURES, LanguageModel, initialize
from headway.recipe import Recipe

VOCABULARY = 300
END = "<|endoftext|>"
TEXT = "def naïve(x: int) -> str:\n\treturn f'{x!r} — 数'\n"


def recipe(**model: Any) -> Recipe:
    """A tiny recipe."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"block_tokens": 64},
            "model": {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "ffn_width": 48, **model},
            "train": {"tokens": 64, "batch_tokens": 64, "micro_batch_tokens": 64},
        }
    )


def decoder(whose: Recipe) -> LanguageModel:
    """The model of a recipe, with parameters large enough for every part to matter."""
    model = ARCHITECTURES[whose.model.kind].build(whose.model, VOCABULARY, 16)
    initialize(model, 1)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter.mul_(4.0).add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer.json of 300 tokens, the last of which ends a document."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    built.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    built.add_special_tokens([END])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    built.save(str(path))
    return path


def write(directory: Path, tokenizer: Path, whose: Recipe, model: LanguageModel, **changes: Any) -> list[Path]:
    """Export `model` with default arguments, some of them changed."""
    arguments: dict[str, Any] = {
        "recipe": whose,
        "tensors": model.named_parameters(),
        "tokenizer": tokenizer,
        "end_of_document": VOCABULARY - 1,
        "vocabulary": VOCABULARY,
        "facts": {"run": "tiny", "tokens": 1_048_576, "held-out loss": 3.25},
    }
    return export.write(directory, **(arguments | changes))


def inputs() -> Tensor:
    """Random tokens [2, 40]."""
    return torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    ("changes", "shard_bytes"),
    [
        ({"tie_embeddings": True}, 10**9),
        ({"rope_theta": 500_000.0, "norm_eps": 1e-3}, 30_000),
        ({"kv_heads": 4}, 10**9),
        ({"tie_embeddings": True, "kv_heads": 1}, 1),
    ],
)
def test_transformers_computes_the_same_logits(
    tmp_path: Path, tokenizer: Path, changes: dict[str, Any], shard_bytes: int
) -> None:
    """The exported model computes what the trained one does, with one weights file or several."""
    whose = recipe(**changes)
    model = decoder(whose)
    files = write(tmp_path / "out", tokenizer, whose, model, shard_bytes=shard_bytes)
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert (len(weights) == 1) == (shard_bytes == 10**9)
    assert (tmp_path / "out" / "model.safetensors.index.json").exists() == (len(weights) > 1)
    names = [name for file in weights for name in load_file(file)]
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert theirs.dtype == torch.float32
    with torch.no_grad():
        ours, exported = model(inputs()), theirs(inputs()).logits
    assert ours.std() > 0.5
    torch.testing.assert_close(exported, ours, rtol=1e-5, atol=1e-5)


def test_bfloat16_export_is_the_rounded_model(tmp_path: Path, tokenizer: Path) -> None:
    """With dtype bfloat16 the file and its configuration hold each parameter rounded."""
    whose = recipe()
    model = decoder(whose)
    write(tmp_path / "out", tokenizer, whose, model, dtype="bfloat16")
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert all(value.dtype == torch.bfloat16 for value in stored.values())
    assert torch.equal(stored["lm_head.weight"], model.get_parameter("head.weight").bfloat16())


def test_exported_tokenizer_round_trips(tmp_path: Path, tokenizer: Path) -> None:
    """The exported tokenizer encodes as the run's does, and has its end-of-document token."""
    whose = recipe()
    write(tmp_path / "out", tokenizer, whose, decoder(whose))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = theirs.encode(TEXT)
    assert ids == Tokenizer.from_file(str(tokenizer)).encode(TEXT).ids
    assert theirs.decode(ids) == TEXT
    assert (theirs.eos_token, theirs.eos_token_id) == (END, VOCABULARY - 1)
    assert theirs.decode([*ids, VOCABULARY - 1], skip_special_tokens=True) == TEXT
    assert theirs.model_max_length == 64


def test_card_names_the_run_and_the_recipe(tmp_path: Path, tokenizer: Path) -> None:
    """The model card holds the facts and the whole recipe."""
    whose = recipe()
    write(tmp_path / "out", tokenizer, whose, decoder(whose))
    text = (tmp_path / "out" / "README.md").read_text()
    for words in ("| tokens | 1,048,576 |", "| held-out loss | 3.25 |", "kv_heads: 2", "vllm serve out"):
        assert words in text


def test_occupied_directory_is_refused_and_left_alone(tmp_path: Path, tokenizer: Path) -> None:
    """An occupied directory is refused before a parameter is read; an empty directory is used."""
    whose = recipe()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(UsageError, match="name a new directory"):
            write(tmp_path / name, tokenizer, whose, decoder(whose), tensors=(pytest.fail("read") for _ in "x"))
    write(tmp_path / "empty", tokenizer, whose, decoder(whose))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    assert json.loads((tmp_path / "empty" / "config.json").read_text())["model_type"] == "llama"


def test_exported_files_have_equal_permissions(tmp_path: Path, tokenizer: Path) -> None:
    """Weights have the permissions of the other files, so that another user can serve them."""
    whose = recipe()
    files = write(tmp_path / "out", tokenizer, whose, decoder(whose), shard_bytes=30_000)
    assert {file.stat().st_mode for file in files} == {(tmp_path / "out" / "config.json").stat().st_mode}


def test_failed_export_leaves_nothing(tmp_path: Path, tokenizer: Path) -> None:
    """The directory appears after the last file is written; after an error, nothing remains."""
    whose = recipe()

    def broken() -> Iterator[tuple[str, Tensor]]:
        yield from list(decoder(whose).named_parameters())[:3]
        assert not (tmp_path / "out").exists()
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", tokenizer, whose, decoder(whose), tensors=broken(), shard_bytes=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("most", [100, 20_000], ids=["text", "weights"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, tokenizer: Path, most: int) -> None:
    """Whoever writes the file that does not fit; the message names the directory."""
    whose = recipe()
    with pytest.raises(HeadwayError, match=r"out: cannot be written: .*File too large"), short_files(most):
        write(tmp_path / "out", tokenizer, whose, decoder(whose))
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_do_not_fit_the_recipe_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    """A missing, unknown, duplicate or misshapen parameter is named."""
    whose = recipe()
    named = list(decoder(whose).named_parameters())
    for tensors, words in (
        (named[1:], "lacks embedding.weight"),
        (
            [*named, ("blocks.9.attention_norm.weight", torch.ones(32))],
            "blocks.9.attention_norm.weight is not a parameter",
        ),
        ([*named, named[0]], "embedding.weight is not a parameter of the recipe's model, or occurs twice"),
        ([(name, value[:1]) for name, value in named], r"embedding.weight has shape \(1, 32\)"),
    ):
        with pytest.raises(DamageError, match=words):
            write(tmp_path / "out", tokenizer, whose, decoder(whose), tensors=tensors)
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_that_does_not_fit_the_model_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    """A tokenizer with more tokens than the model, without the end of document, or missing, is refused."""
    whose = recipe()
    for changes, words in (
        ({"vocabulary": 280}, "tokens up to 299"),
        ({"end_of_document": 0}, "no special token 0"),
        ({"vocabulary": 299}, "ends at 298"),
    ):
        with pytest.raises(DataError, match=words):
            write(tmp_path / "out", tokenizer, whose, decoder(whose), **changes)
    for file, words in ((tmp_path / "absent", "does not exist"), (Path(__file__), "is not a tokenizer.json")):
        with pytest.raises(DataError, match=words):
            write(tmp_path / "out", file, whose, decoder(whose))


def test_continuation_is_the_greedy_one_offline_and_quiet(
    tmp_path: Path, tokenizer: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample is the greedy continuation of the trained model, made without network access or output."""
    whose = recipe()
    model = decoder(whose)
    write(tmp_path / "out", tokenizer, whose, model)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("network access"))
    messages = BufferingHandler(1000)
    transformers.utils.logging.add_handler(messages)
    capfd.readouterr()
    text = export.continuation(tmp_path / "out", "def naïve", 8)
    assert isinstance(export.continuation(tmp_path / "out", "", 3), str)
    assert isinstance(export.continuation(tmp_path / "out", "longer than a block " * 20, 3), str)
    transformers.utils.logging.remove_handler(messages)
    assert messages.buffer == []
    assert capfd.readouterr() == ("", "")
    words = Tokenizer.from_file(str(tokenizer))
    ids = words.encode("def naïve").ids
    start = len(ids)
    while len(ids) < start + 8 and ids[-1] != VOCABULARY - 1:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert text == words.decode(ids[start:])


def test_sample_without_a_model_is_refused(tmp_path: Path) -> None:
    """The message names the command that makes a model."""
    with pytest.raises(UsageError, match="headway export"):
        export.continuation(tmp_path, "x", 1)
