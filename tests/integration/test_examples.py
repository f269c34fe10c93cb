"""The command lines of README and help, run in their order: for a small model that is called quickstart."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from headway.cli.keys import FILE
from headway.serve.tenants.key_file import KeyStore
from tests.engines.s3.server import S3Server
from tests.examples import help_examples, page_examples
from tests.integration.training import DEADLINE, prepare
from tests.integration.zygote import Command

pytestmark = pytest.mark.slow
ELSEWHERE = {
    **dict.fromkeys(("submit", "job", "cancel", "requeue"), "test_submit.py, on a real SLURM"),
    **dict.fromkeys(("serve", "quantize"), "test_serve.py"),
}
"""Commands that other tests run, with what."""
NAMES = {"NAME", "slm"}
"""Names in examples that no other example makes."""


def succeed(words: Sequence[str]) -> str:
    """Run a command and return its output; it has to succeed."""
    command = Command(words)
    code = command.wait(DEADLINE)
    assert code == 0, f"{words}: {code}: {command.stderr.read()}"
    return command.stdout.read()


def test_every_example_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    """One after the other in one folder, as a newcomer copies them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADWAY_STORE", raising=False)
    recipe = tmp_path / "jobs/recipes/quickstart.yaml"
    recipe.parent.mkdir(parents=True)
    document = yaml.safe_load(prepare(tmp_path, "tiny").read_text(encoding="utf-8"))
    document["train"] |= {"batch_tokens": 5120, "micro_batch_tokens": 640}
    document["evaluation"]["every_tokens"] = document["checkpoint"]["every_tokens"] = 204_800
    recipe.write_text(yaml.safe_dump(document | {"name": "quickstart"}), encoding="utf-8")
    places = {"file:///shared/runs": (tmp_path / "runs").as_uri(), "s3://bucket/runs": f"{s3.url}/{tmp_path.name}"}

    def here(word: str) -> str:
        return KeyStore(FILE).load().keys[0].key_id if word == "1a2b3c4d" else places.get(word, word)

    examples = [example for example in page_examples() if example.place == "README.md"] + help_examples()
    ran = set()
    for example in examples:
        if example.words[0] in ELSEWHERE or NAMES & set(example.words):
            continue
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        succeed([here(word) for word in example.words])
        ran.add(example.place)
    assert len(ran) > 20
