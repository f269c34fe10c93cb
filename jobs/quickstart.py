"""The promise of Headway, shown in a few minutes: a run that is killed twice ends with the same bits, and is served.

Run by `make quickstart`, or `make quickstart STORE=s3` for a real S3 server as the run store. Uses nothing but the
`headway` command, as a person would.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

HEADWAY = [sys.executable, "-m", "headway.cli"]
RECIPE = "jobs/recipes/quickstart.yaml"
OUT = Path("out/quickstart")
WHERE = {"HEADWAY_STORE": f"file://{OUT.absolute()}/store"}
"""The run store, for every command."""
PROMPT = "import os\nimport sys\n\ndef "


def say(text: str = "") -> None:
    """A line for the reader."""
    print(text, flush=True)  # noqa: T201 - a script for people


def step(text: str) -> None:
    """Announce a step, and why it matters."""
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def headway(*words: str) -> str:
    """Run a command, shown; returns what it prints."""
    say(f"  $ headway {shlex.join(words)}")
    done = subprocess.run(
        [*HEADWAY, *words], env={**os.environ, **WHERE}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"headway {words[0]} left with code {done.returncode}")
    return done.stdout.rstrip()


def train(run: str, ranks: int, *, kill: signal.Signals | None = None, at: int = 0) -> None:
    """Train, with a line of progress now and then; send `kill` to every process once `at` tokens are done."""
    words = ["train", RECIPE, "--run", run, "--nproc", str(ranks)]
    say(f"  $ headway {shlex.join(words)}")
    process = subprocess.Popen(
        [*HEADWAY, *words],
        env={**os.environ, **WHERE},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {"event": line.rstrip()}
        show(event)
        if kill and event["event"] == "step.done" and event["tokens"] >= at:
            say(f"    {kill.name} to every process of the run")
            os.killpg(process.pid, kill)
            kill = None
    if process.wait() == 1:
        sys.exit(f"headway train left with code {process.returncode}")


def show(event: dict[str, Any]) -> None:
    """One event of a training run, if it tells a person something."""
    match event:
        case {"event": "step.done", "tokens": tokens, "loss": loss, "tokens_per_second": speed}:
            if tokens % 131_072 == 0:
                say(f"    {tokens:>9,} tokens  loss {loss:.3f}  {speed:,.0f} tokens/s")
        case {"event": "evaluation.done", "tokens": tokens, "held_out": held_out}:
            say(f"    {tokens:>9,} tokens  held-out loss {held_out:.3f}")
        case {"event": "checkpoint.restored", "tokens": tokens}:
            say(f"    {tokens:>9,} tokens  restored from the last checkpoint")
        case {"timestamp": _}:
            pass
        case {"event": text}:
            say(f"    {text}")


def serve(model: str) -> None:
    """Serve a model, let an OpenAI client ask it, and stop it again."""
    import openai

    port = next(port for port in range(8000, 9000) if _is_free(port))
    words = ["serve", model, "--port", str(port), "--json", "--quiet"]
    say(f"  $ headway {shlex.join(words)}")
    process = subprocess.Popen([*HEADWAY, *words], env={**os.environ, **WHERE}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        said = "".join(takewhile(lambda line: line != "}\n", process.stdout))  # it says that it is ready
        if not said:
            sys.exit(f"headway serve left with code {process.wait()}")
        ready = json.loads(f"{said}}}")
        say(f"    ready after {ready['startup']['total']:.0f} s at {ready['url']}")
        client = openai.OpenAI(base_url=ready["url"], api_key="-")
        say(f"    client.completions.create(model={ready['model']!r}, prompt={PROMPT!r}, stream=True) says:")
        say()
        say(PROMPT + "".join(piece.choices[0].text for piece in _pieces(client, ready["model"])))
    finally:
        process.terminate()
        process.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) != 0


def _pieces(client: Any, model: str) -> Any:
    return client.completions.create(model=model, prompt=PROMPT, max_tokens=64, temperature=0, stream=True)


def main() -> None:
    """The whole story."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=WHERE["HEADWAY_STORE"], help="an empty run store")
    WHERE["HEADWAY_STORE"] = parser.parse_args().store
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    step("1. Turn the Python standard library into token shards: real text that every machine has.")
    headway("data", "build", RECIPE, "--quiet")
    step("2. Train on two FSDP ranks and let nobody disturb it: the run to compare with.")
    train("unkilled", 2)
    step("3. Train the same recipe, and ask it to stop with SIGTERM: it saves, commits and leaves. No token is lost.")
    train("killed", 2, kill=signal.SIGTERM, at=300_000)
    step("4. The same command goes on, now on three ranks. SIGKILL: what came after the last commit is trained again.")
    train("killed", 3, kill=signal.SIGKILL, at=500_000)
    step("5. The same command once more, on two ranks, to the end.")
    train("killed", 2)
    step("6. Compare all parameters, bit for bit: equal means that neither kill nor resize left a trace.")
    fingerprints = {run: headway("fingerprint", run) for run in ("unkilled", "killed")}
    for run, fingerprint in fingerprints.items():
        say(f"    {run:8} {fingerprint}")
    if len(set(fingerprints.values())) > 1:
        sys.exit("    DIFFERENT: this is a bug in Headway; please report it")
    say("    equal")
    step("7. Read every stored byte again and check it against its checksum: nothing is trusted.")
    say(f"    {headway('verify', 'killed', '--quiet')}")
    step("8. Where the time went: every second of every rank is booked to one phase.")
    say(headway("goodput", "killed"))
    step("9. Draw the curves, with the kills marked.")
    headway("plot", "killed", "--to", str(OUT / "killed.png"), "--quiet")
    step("10. Export a directory that Hugging Face transformers and vLLM read, and let the model continue a line.")
    say(headway("export", "killed", "--to", str(OUT / "model"), "--sample", PROMPT, "--quiet"))
    step("11. Publish it: an immutable version with checksums and its origin, which `stable` points at.")
    say(headway("publish", "killed", "--as", "quickstart", "--alias", "stable", "--quiet"))
    step("12. Serve it, verified before it is loaded, and ask it with the openai client.")
    serve("quickstart@stable")
    step(f"Done in {time.monotonic() - began:.0f} s. The picture: {OUT / 'killed.png'}. The model: {OUT / 'model'}")


if __name__ == "__main__":
    main()
