"""The promise of Headway, shown in a few minutes: a run that is killed twice ends with the same bits.

Run by `make quickstart`. Uses nothing but the `headway` command, as a person would.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HEADWAY = [sys.executable, "-m", "headway.cli"]
RECIPE = "jobs/recipes/quickstart.yaml"
OUT = Path("out/quickstart")
PROMPT = "import os\n\ndef "


def say(text: str) -> None:
    """A line for the reader."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def headway(*words: str) -> str:
    """Run a command, shown; returns what it prints."""
    print(f"  $ headway {' '.join(words)}", flush=True)
    return subprocess.run([*HEADWAY, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def train(run: str, ranks: int, *, kill: signal.Signals | None = None, at: float = 1.0) -> None:
    """Train, with a line of progress now and then; send `kill` when the share `at` of the budget is done."""
    words = ["train", RECIPE, "--run", run, "--nproc", str(ranks)]
    print(f"  $ headway {' '.join(words)}", flush=True)
    process = subprocess.Popen([*HEADWAY, *words], stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr
    budget = int(
        json.loads(subprocess.check_output([*HEADWAY, "recipe", "check", RECIPE, "--json"]))["recipe"]["train"][
            "tokens"
        ]
    )
    shown = 0.0
    for line in process.stderr:
        if not line.startswith("{"):
            print(f"    {line.rstrip()}", flush=True)
            continue
        event = json.loads(line)
        share = event.get("tokens", 0) / budget
        if event["event"] == "step.done" and (share >= shown + 0.125 or share >= 1.0):
            shown = share
            print(
                f"    {event['tokens']:>9,} tokens  loss {event['loss']:.3f}  {event['tokens_per_second']:,.0f} tokens/s",
                flush=True,
            )
        if event["event"] in {"checkpoint.restored", "evaluation.done"}:
            print(f"    {event['tokens']:>9,} tokens  {event['event']} {event.get('held_out', '')}", flush=True)
        if kill and event["event"] == "step.done" and share >= at:
            print(f"    {kill.name} to every process of the run", flush=True)
            os.killpg(process.pid, kill)
            kill = None
    process.wait()


def main() -> None:
    """The whole story."""
    began = time.monotonic()
    say("1. Turn the Python standard library into token shards: real text that every machine has.")
    headway("data", "build", RECIPE, "--quiet")
    say("2. Train with two FSDP ranks, and let nobody disturb it: the run to compare with.")
    train("quickstart-unkilled", 2)
    say("3. Train the same recipe, and ask it to stop with SIGTERM: it saves, commits and leaves; no token is lost.")
    train("quickstart-killed", 2, kill=signal.SIGTERM, at=0.3)
    say(
        "4. The same command goes on, now with three ranks; SIGKILL gives it no chance to save: it loses what came after the last commit."
    )
    train("quickstart-killed", 3, kill=signal.SIGKILL, at=0.6)
    say("5. The same command again, with two ranks, to the end.")
    train("quickstart-killed", 2)
    say("6. Compare all parameters, bit for bit. Equal means that the kills and the world sizes left no trace.")
    unkilled, killed = headway("fingerprint", "quickstart-unkilled"), headway("fingerprint", "quickstart-killed")
    print(f"    unkilled {unkilled}\n    killed   {killed}")
    if unkilled != killed:
        sys.exit("the fingerprints differ: this is a bug in Headway; please report it with ./runs")
    say("7. Read every stored byte again, and check it against its checksum.")
    print(f"    {headway('verify', 'quickstart-killed', '--quiet')}")
    say("8. Where the time went: every second of every rank is booked to one phase.")
    print(headway("goodput", "quickstart-killed"))
    say("9. Export a Hugging Face directory, and let the model continue a line.")
    headway("export", "quickstart-killed", "--to", str(OUT / "model"), "--quiet")
