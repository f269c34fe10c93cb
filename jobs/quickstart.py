"""A demonstration of a few minutes: a run that is killed twice ends with the same bits, and is then served.

Run it with `make quickstart`, or with `make quickstart STORE=s3` for an S3 server as the run store. It uses only the
`headway` command, as a user would.
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
ENVIRONMENT = {"HEADWAY_STORE": f"file://{OUT.absolute()}/store"}
"""Environment variables of every command: the run store."""
PROMPT = "import os\nimport sys\n\ndef "


def output(text: str = "") -> None:
    """Prints a line."""
    print(text, flush=True)  # noqa: T201 - a script for users


def step(text: str) -> None:
    """Announces a step and its purpose."""
    output(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def headway(*words: str) -> str:
    """Prints and runs a command. Returns its standard output."""
    output(f"  $ headway {shlex.join(words)}")
    done = subprocess.run(
        [*HEADWAY, *words], env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"headway {words[0]} ended with exit code {done.returncode}")
    return done.stdout.rstrip()


def train(run: str, ranks: int, *, kill: signal.Signals | None = None, at: int = 0) -> None:
    """Trains and prints some progress. Sends `kill` to every process once `at` tokens are trained."""
    words = ["train", RECIPE, "--run", run, "--nproc", str(ranks)]
    output(f"  $ headway {shlex.join(words)}")
    process = subprocess.Popen(
        [*HEADWAY, *words],
        env={**os.environ, **ENVIRONMENT},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {"event": line.rstrip()}
        show(event)
        if kill and event["event"] == "step.done" and event["tokens"] >= at:
            output(f"    {kill.name} to every process of the run")
            os.killpg(process.pid, kill)
            kill = None
    if process.wait() == 1:
        sys.exit(f"headway train ended with exit code {process.returncode}")


def show(event: dict[str, Any]) -> None:
    """Prints an event of a training run if it is of interest to a user."""
    match event:
        case {"event": "step.done", "tokens": tokens, "loss": loss, "tokens_per_second": speed}:
            if tokens % 131_072 == 0:
                output(f"    {tokens:>9,} tokens  loss {loss:.3f}  {speed:,.0f} tokens/s")
        case {"event": "evaluation.done", "tokens": tokens, "held_out": held_out}:
            output(f"    {tokens:>9,} tokens  held-out loss {held_out:.3f}")
        case {"event": "checkpoint.restored", "tokens": tokens}:
            output(f"    {tokens:>9,} tokens  restored from the last checkpoint")
        case {"timestamp": _}:
            pass
        case {"event": text}:
            output(f"    {text}")


def serve(model: str) -> None:
    """Serves a model, sends a request with an OpenAI client, and stops the service."""
    import openai

    port = next(port for port in range(8000, 9000) if _is_free(port))
    words = ["serve", model, "--port", str(port), "--json", "--quiet"]
    output(f"  $ headway {shlex.join(words)}")
    process = subprocess.Popen([*HEADWAY, *words], env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        document = "".join(takewhile(lambda line: line != "}\n", process.stdout))  # printed once it is ready
        if not document:
            sys.exit(f"headway serve ended with exit code {process.wait()}")
        ready = json.loads(f"{document}}}")
        output(f"    ready after {ready['startup']['total']:.0f} s at {ready['url']}")
        client = openai.OpenAI(base_url=ready["url"], api_key="-")
        output(f"    client.completions.create(model={ready['model']!r}, prompt={PROMPT!r}, stream=True) returns:")
        output()
        output(PROMPT + "".join(piece.choices[0].text for piece in _pieces(client, ready["model"])))
    finally:
        process.terminate()
        process.wait()


def _is_free(port: int) -> bool:
    """Whether no process listens on the port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def _pieces(client: Any, model: str) -> Any:
    """The streamed pieces of a completion."""
    return client.completions.create(model=model, prompt=PROMPT, max_tokens=64, temperature=0, stream=True)


def main() -> None:
    """Runs all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=ENVIRONMENT["HEADWAY_STORE"], help="URL of an empty run store")
    ENVIRONMENT["HEADWAY_STORE"] = parser.parse_args().store
    start = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    step("1. Turn the Python standard library, a text on every machine, into token shards.")
    headway("data", "build", RECIPE, "--quiet")
    step("2. Train on two FSDP ranks without interruption, for comparison.")
    train("unkilled", 2)
    step("3. Train the same recipe, and stop it with SIGTERM: it saves, commits and exits. No token is lost.")
    train("killed", 2, kill=signal.SIGTERM, at=300_000)
    step("4. Continue with the same command on three ranks. SIGKILL: tokens after the last commit are trained again.")
    train("killed", 3, kill=signal.SIGKILL, at=500_000)
    step("5. Continue with the same command, on two ranks, to the end.")
    train("killed", 2)
    step("6. Compare all parameters, bit for bit: equal means that neither kills nor resizes changed the result.")
    fingerprints = {run: headway("fingerprint", run) for run in ("unkilled", "killed")}
    for run, fingerprint in fingerprints.items():
        output(f"    {run:8} {fingerprint}")
    if len(set(fingerprints.values())) > 1:
        sys.exit("    DIFFERENT: this is a bug in Headway; please report it")
    output("    equal")
    step("7. Verify the checksum of every stored byte.")
    output(f"    {headway('verify', 'killed', '--quiet')}")
    step("8. Show how every second of every rank was spent, by phase.")
    output(headway("goodput", "killed"))
    step("9. Draw the curves and mark the kills.")
    headway("plot", "killed", "--to", str(OUT / "killed.png"), "--quiet")
    step("10. Export a directory for Hugging Face transformers and vLLM, and let the model continue a line.")
    output(headway("export", "killed", "--to", str(OUT / "model"), "--sample", PROMPT, "--quiet"))
    step("11. Publish it as an immutable version with checksums and its origin; the alias `stable` points to it.")
    output(headway("publish", "killed", "--as", "quickstart", "--alias", "stable", "--quiet"))
    step("12. Serve it, verified before it is loaded, and send a request with the openai client.")
    serve("quickstart@stable")
    step(f"Done in {time.monotonic() - start:.0f} s. The picture: {OUT / 'killed.png'}. The model: {OUT / 'model'}")


if __name__ == "__main__":
    main()
