"""The words of the command line are a contract: users, scripts and sbatch files rely on them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, step, trained

from headway.cli.commands import app
from headway.objectstore.folder import FolderStore

COMMON = "--json --quiet"
CONTRACT = {
    "train": (
        "RECIPE [KEY=VALUE]... --allow-unfenced --from-tokens --launch --metrics --node --nodes --nproc --run --store "
        f"--take-over {COMMON}"
    ),
    "submit": (
        "RECIPE [KEY=VALUE]... --account --allow-unfenced --array --constraint --dry-run --exclude "
        "--from-tokens --gpus --logs --name --nodes --nproc --parallel --partition --qos --sbatch --store --time "
        f"{COMMON}"
    ),
    "runs": f"--store {COMMON}",
    "status": f"NAME --store {COMMON}",
    "logs": f"NAME --attempt --follow --store {COMMON}",
    "cancel": f"NAME --store {COMMON}",
    "requeue": f"NAME --store {COMMON}",
    "job": f"[RECIPE] [KEY=VALUE]... --nodes --nproc --run --store --submission {COMMON}",
    "ledger": f"RUN --store {COMMON}",
    "goodput": f"RUN --store {COMMON}",
    "plot": f"RUN --store --to {COMMON}",
    "verify": f"RUN --store {COMMON}",
    "fingerprint": f"RUN --store --tokens {COMMON}",
    "export": f"RUN --data --dtype --sample --store --to --tokens {COMMON}",
    "publish": f"RUN --alias --as --data --dtype --store --tokens {COMMON}",
    "models": f"[NAME] --store --verify {COMMON}",
    "alias": f"NAME@VERSION ALIAS --store {COMMON}",
    "quantize": f"MODEL --to --as --alias --store {COMMON}",
    "serve": "MODEL --name --host --port --context --streams --queue --keys --fallback --role --price --body-mib"
    f" --connections-per-address --store {COMMON}",
    "keys add": f"TENANT --file {COMMON}",
    "keys ls": f"--file {COMMON}",
    "keys limit": f"TENANT --requests --tokens --file {COMMON}",
    "keys revoke": f"KEY --file {COMMON}",
    "recipe check": f"RECIPE [KEY=VALUE]... {COMMON}",
    "recipe schema": COMMON,
    "data build": f"RECIPE [KEY=VALUE]... {COMMON}",
    "store ls": f"[RUN]... --store {COMMON}",
    "store gc": f"[RUN]... --dry-run --older-than --store {COMMON}",
    "store cp": f"RUN URL --store {COMMON}",
}
"""Every command, in the order of the help, with its arguments and options. Taking one away breaks somebody."""


def commands(group: Any, before: str = "") -> dict[str, Any]:
    """All commands below `group`, by their words."""
    table: dict[str, Any] = {}
    for name, command in group.commands.items():
        words = f"{before}{name}"
        table |= commands(command, f"{words} ") if hasattr(command, "commands") else {words: command}
    return table


COMMANDS = commands(typer.main.get_command(app))


def test_the_words_are_those_of_the_contract() -> None:
    """Commands, arguments and options are exactly those listed here."""
    words = {
        name: sorted(p.opts[0] if p.param_type_name == "option" else p.metavar for p in command.params)
        for name, command in COMMANDS.items()
    }
    assert words == {name: sorted(line.split()) for name, line in CONTRACT.items()}


def test_the_help_teaches_in_order(headway: Headway) -> None:
    """`headway --help` lists the commands in the order of a typical workflow."""
    shown = headway("--help").out
    first = list(dict.fromkeys(name.split()[0] for name in CONTRACT))
    places = [shown.index(f"│ {name} ") for name in first]
    assert places == sorted(places)


@pytest.mark.parametrize("name", CONTRACT)
def test_every_help_has_an_example(headway: Headway, name: str) -> None:
    """The help of each command has a command line to copy."""
    shown = headway(*name.split(), "--help")
    assert shown.code == 0
    assert f"Example: headway {name}" in shown.out


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """A login node has no torch, so importing all commands imports none of these libraries."""
    heavy = {
        "torch",
        "numpy",
        "matplotlib",
        "transformers",
        "safetensors",
        "xxhash",
        "structlog",
        "tokenizers",
        "submitit",
    }
    script = f"import sys, headway.cli.commands; print(*sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_nothing_but_the_views_of_checkpoints_needs_numpy(store: FolderStore) -> None:
    """runs, status, logs, ledger and goodput need only the packages of a login node."""
    trained(Story(store, "tale"))
    script = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'matplotlib', 'xxhash', 'structlog', 'submitit'): sys.modules[name] = None\n"
        "from headway.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    for words in (["runs"], ["status", "tale"], ["logs", "tale"], ["ledger", "tale"], ["goodput", "tale"]):
        answer = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
        assert (words, answer.returncode, answer.stderr) == (words, 0, "")


def test_a_reader_that_leaves_early_is_no_error_to_look_at(store: FolderStore) -> None:
    """`headway logs RUN | head -1` prints no traceback."""
    story = Story(store, "tale")
    story.claim(100)
    story.say(*(step(tokens) for tokens in range(1000, 10_000_000, 1000)))
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for words in (["logs", "tale"], ["status", "tale", "--json"], ["ledger", "tale"]):
        command = [sys.executable, "-m", "headway.cli", *words]
        answer = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
        assert answer.stderr == ""
        assert answer.returncode == 1
    os.close(writing)


def test_ctrl_c_while_it_starts_is_no_error_to_look_at() -> None:
    """Ctrl-C during start-up exits with 130 and without a traceback."""
    script = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'headway.cli.commands': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from headway.cli import main\n"
        "main(['runs'])\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (130, "")


def test_wrong_words_are_wrong_use(headway: Headway, tmp_path: Path) -> None:
    """An unknown command, a missing option and a malformed store URL exit with code 2."""
    assert headway("trian").code == 2
    assert headway("export", "tale").code == 2
    answer = headway("runs", "--store", "ftp://x")
    assert (answer.code, answer.out) == (2, "")
    assert "ftp://x" in answer.err
    assert headway("recipe", "check", str(tmp_path / "none.yaml")).code == 2
