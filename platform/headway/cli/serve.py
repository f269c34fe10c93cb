"""`headway serve`."""

import signal
import sys
import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headway.cli.model import Named, choose_model
from headway.cli.options import Json, Quiet, StoreUrl
from headway.cli.screen import result, show
from headway.errors import ServeError, UsageError


class Role(StrEnum):
    """What a service is to the others of its name."""

    STABLE = "stable"
    CANARY = "canary"


def serve(
    model: Named,
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What clients call the model. Default: its own name.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 8000,
    context: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=1, help="Longest prompt and answer. Default: the model's.")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Requests that are computed at a time.")] = 64,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are told when to come again.")] = 64,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only who has one of these API keys may ask: headway keys add.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Another service, .../v1, which answers while this one's engine cannot."),
    ] = None,
    role: Annotated[Role, typer.Option(help="What metrics say that this one is.")] = Role.STABLE,
    price: Annotated[float, typer.Option(min=0, help="Of an hour of the device, for the costs by tenant.")] = 0.0,
    body_mib: Annotated[int, typer.Option(metavar="MIB", min=1, help="Longest body of a request [MiB].")] = 4,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve a model to OpenAI clients, until Ctrl-C or SIGTERM, which let requests in flight come to their end.

    A version of the registry is verified, byte for byte, before it is loaded.

    Example: **headway serve coder@stable**, then **openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")**
    """
    began = time.time()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # in order, also before the service listens to it
    with ExitStack() as stack:
        chosen = choose_model(model, store, stack, quiet=quiet)

        from headway.serve import ServeConfig, Service
        from headway.serve.engine import on_gpu

        endpoint = ServeConfig(
            folder=chosen.folder.absolute(),
            name=name or chosen.name,
            version=chosen.version,
            role=role.value,
            device="cuda" if on_gpu() else "cpu",
            quantization=(chosen.manifest and chosen.manifest.quantization) or "none",
            trace=chosen.manifest and chosen.manifest.trace,
            price=price,
            fallback=fallback,
            quiet=quiet,
            host=host,
            port=port,
            context_tokens=context,
            streams=streams,
            queue=queue,
            keys=keys and _sound(keys),
            body_bytes=body_mib * 2**20,
        )
        if keys is None and host not in {"127.0.0.1", "localhost"}:
            show(f"headway: whoever reaches {host}:{port} may ask; headway keys add TENANT, then --keys keys.json")
        service = stack.enter_context(Service(endpoint))
        told: dict[str, float] = {"ray": round(time.time() - began, 3)}
        with Console(stderr=True, quiet=quiet).status("loading") as status:
            ready = service.start(lambda stages: status.update(f"loading: {', '.join(stages)} done"))
        if ready:
            told |= service.stages() | {"total": round(time.time() - began, 3)}
            document = {"model": endpoint.name, "version": chosen.version, "url": service.url, "startup": told}
            called = f"{endpoint.name} (version {chosen.version})" if chosen.version else endpoint.name
            result(document, f"{called} is served at {service.url}", as_json=as_json)
            service.watch()
            show("headway: stopping: requests in flight come to their end; again to cut them off", quiet=quiet)
            if not service.drain():
                raise ServeError("stopped, but some requests in flight were cut off")


def _sound(keys: Path) -> Path:
    """A file of API keys.

    Raises:
        UsageError: it is none, or has none.
    """
    from headway.serve.tenants import KeyStore

    if not KeyStore(keys).read():
        raise UsageError(f"{keys} has no API key, so nobody could ask; headway keys add TENANT --file {keys} makes one")
    return keys.absolute()
