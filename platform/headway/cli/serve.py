"""`headway serve`."""

import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from headway.cli.options import Json, Quiet, StoreUrl, chosen_commit, chosen_run, chosen_store
from headway.cli.screen import bar, result, show
from headway.errors import UsageError

RUN = "run:"
"""What a MODEL that is a run begins with."""


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model of the registry, NAME[@VERSION or @ALIAS]; run:RUN[@TOKENS]; or a directory."
        ),
    ],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What clients call the model. Default: its own name.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    context: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Longest prompt and answer. Default: the model's.")
    ] = None,
    streams: Annotated[int, typer.Option(help="Requests that are computed at a time.")] = 64,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more are told when to come again.")] = 64,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only who has one of these API keys may ask: headway keys add.")
    ] = None,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve a model to OpenAI clients, until Ctrl-C or SIGTERM, which let requests in flight come to their end.

    A version of the registry is verified, byte for byte, before it is loaded.

    Example: **headway serve coder@stable**, then **openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")**
    """
    began = time.time()
    with ExitStack() as stack:
        own, version, folder = _found(model, store, stack, quiet=quiet)

        from headway.serve import Endpoint, Service

        endpoint = Endpoint(
            folder=folder.absolute(),
            name=name or own,
            version=version,
            host=host,
            port=port,
            context_tokens=context,
            streams=streams,
            queue=queue,
            keys=keys and _sound(keys),
        )
        if keys is None and host not in {"127.0.0.1", "localhost", "::1"}:
            show(f"headway: whoever reaches {host}:{port} may ask; headway keys add TENANT, then --keys keys.json")
        service = stack.enter_context(Service(endpoint))
        told: dict[str, float] = {"ray": round(time.time() - began, 3)}
        with Console(stderr=True, quiet=quiet).status("loading") as status:
            ready = service.start(lambda stages: status.update(f"loading: {', '.join(stages)} done"))
        if ready:
            told |= service.stages() | {"total": round(time.time() - began, 3)}
            document = {"model": endpoint.name, "version": version, "url": service.url, "startup": told}
            called = f"{endpoint.name} (version {version})" if version else endpoint.name
            result(document, f"{called} is served at {service.url}", as_json=as_json)
            service.watch()
        show("headway: stopping: requests in flight come to their end", quiet=quiet)
        service.drain()


def _sound(keys: Path) -> Path:
    """A file of API keys.

    Raises:
        UsageError: it is none, or has none.
    """
    from headway.serve.tenants import Keys

    if not Keys(keys).read():
        raise UsageError(f"{keys} has no API key, so nobody could ask; headway keys add TENANT --file {keys} makes one")
    return keys.absolute()


def _found(model: str, store: str | None, stack: ExitStack, *, quiet: bool) -> tuple[str, str, Path]:
    """Name, version and directory of a model; what has to be made for it lies there until `stack` is closed.

    Raises:
        UsageError: there is no such model; says what there is.
        DamageError: it is not what was published.
    """
    if model.startswith(RUN):
        return _exported(model.removeprefix(RUN), store, stack, quiet=quiet)
    folder = Path(model)
    if (folder / "config.json").is_file():
        return folder.absolute().name, "", folder
    if folder.is_dir():
        raise UsageError(f"{model} is no Hugging Face directory: it has no config.json; headway export RUN makes one")

    from headway import registry

    found, version = registry.find(chosen_store(store), model)
    return found.name, str(version.number), found.fetch(version)


def _exported(reference: str, store: str | None, stack: ExitStack, *, quiet: bool) -> tuple[str, str, Path]:
    """A run as it stands, or at so many tokens."""
    name, _, tokens = reference.partition("@")
    if tokens and not tokens.isdecimal():
        raise UsageError(f"{RUN}{reference}: after the @ comes a number of tokens, as headway status {name} shows them")
    run = chosen_run(name, store)
    commit = chosen_commit(run, int(tokens) if tokens else None)

    from headway import export
    from headway.checkpoint.stored import StoredCheckpoint

    checkpoint = StoredCheckpoint(run.store, commit)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="headway-model-"))) / name
    with bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=export.size(checkpoint), note="")
        export.write_checkpoint(
            run, checkpoint, folder, dtype="bfloat16", advance=lambda done: progress.advance(task, done)
        )
    return name, str(commit.tokens), folder
