"""`headway serve`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headway.cli.options import Json, Quiet
from headway.cli.screen import result, show
from headway.errors import UsageError


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A Hugging Face directory.")],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What clients call the model. Default: MODEL.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    context: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Longest prompt and answer. Default: the model's.")
    ] = None,
    streams: Annotated[int, typer.Option(help="Requests that are computed at a time; more wait.")] = 64,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve a model to OpenAI clients, until Ctrl-C or SIGTERM, which let requests in flight come to their end.

    Example: **headway serve model --port 8000**, then **openai.OpenAI(base_url="http://127.0.0.1:8000/v1")**
    """
    began = time.time()
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{model} is no Hugging Face directory: it has no config.json; headway export RUN makes one")

    from headway.serve import Endpoint, Service

    endpoint = Endpoint(
        folder=folder.absolute(),
        name=name or folder.name,
        host=host,
        port=port,
        context_tokens=context,
        streams=streams,
    )
    console = Console(stderr=True, quiet=quiet)
    with Service(endpoint) as service:
        told: dict[str, float] = {"ray": round(time.time() - began, 3)}
        with console.status("loading", spinner="dots") as status:
            ready = service.start(lambda stages: status.update("loading: " + ", ".join(stages)))
        if ready:
            told |= service.stages() | {"total": round(time.time() - began, 3)}
            document = {"model": endpoint.name, "url": service.url, "startup": told}
            result(document, f"{endpoint.name} is served at {service.url}", as_json=as_json)
            service.watch()
        show("headway: stopping: requests in flight come to their end", quiet=quiet)
        service.drain()
