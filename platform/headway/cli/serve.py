"""`headway serve`."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.model import ModelChoice, Named, choose_model
from headway.cli.options import Json, Quiet, StoreUrl
from headway.cli.screen import TextConsole, result, show
from headway.errors import ServeError, UsageError
from headway.localfiles import local_path
from headway.stop_signals import SignalFlag, stop_signals

if TYPE_CHECKING:
    from headway.serve import Service

LOOPBACK = {"127.0.0.1", "localhost"}


class Role(StrEnum):
    """Role of a service among those of the same name."""

    STABLE = "stable"
    CANARY = "canary"


ServedName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Model name for clients. Default: the model's own name.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Context = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", min=1, help="Longest prompt plus answer. Default: the model's context length."),
]
Streams = Annotated[int, typer.Option(min=1, help="Largest number of requests that run at once.")]
Queue = Annotated[int, typer.Option(min=0, help="Largest number of waiting requests; further ones get a 429.")]
KeyFilePath = Annotated[
    Path | None,
    typer.Option(
        parser=local_path, metavar="FILE", help="Require an API key from this file. Make one: headway keys add."
    ),
]
FallbackUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Another service, .../v1, that answers while this one's engine cannot."),
]
MetricsRole = Annotated[Role, typer.Option(help="Role label on metrics.")]
Price = Annotated[float, typer.Option(min=0, help="Device price per hour, for per-tenant cost metrics.")]
Connections = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Most connections of one client address. 0: no limit; all clients of a router share its address.",
    ),
]
BodyMib = Annotated[int, typer.Option(metavar="MIB", min=1, help="Largest request body [MiB].")]


def serve(
    model: Named,
    *,
    name: ServedName = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    context: Context = None,
    streams: Streams = 64,
    queue: Queue = 64,
    keys: KeyFilePath = None,
    fallback: FallbackUrl = None,
    role: MetricsRole = Role.STABLE,
    price: Price = 0.0,
    body_mib: BodyMib = 4,
    connections_per_address: Connections = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve a model to OpenAI clients until Ctrl-C or SIGTERM, which let running requests finish.

    Every byte of a model from the registry is verified before it is loaded.

    Example: **headway serve coder@stable**, then **openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")**
    """
    start = time.time()
    with _early_stop(), ExitStack() as stack:
        choice = choose_model(model, store, stack, quiet=quiet)

        from headway.serve import ServeConfig, Service

        config = ServeConfig(
            **_model_fields(choice),
            name=name or choice.name,
            role=role.value,
            price=price,
            fallback=fallback,
            quiet=quiet,
            host=host,
            port=port,
            context_tokens=context,
            streams=streams,
            queue=queue,
            key_file=keys and _key_file(keys),
            max_body_bytes=body_mib * 2**20,
            connections_per_address=connections_per_address,
        )
        if keys is None and host not in LOOPBACK:
            show(
                f"headway: {host}:{port} accepts requests without an API key; headway keys add TENANT, then --keys FILE"
            )
        with Service(config) as service:
            _run(service, config.name, choice.version, start, as_json=as_json, quiet=quiet)


@contextmanager
def _early_stop() -> Iterator[None]:
    """Exit in order at a signal, until the service handles signals.

    The exit may interrupt an import that catches it, or leaves half a module: then the block ends with another error.
    """
    is_stopping = SignalFlag()

    def stop(*_: Any) -> None:
        is_stopping.set()
        sys.exit(0)

    for number in stop_signals():
        signal.signal(number, stop)
    try:
        yield
    except Exception:
        if is_stopping.is_set():
            sys.exit(0)
        raise


def _model_fields(choice: ModelChoice) -> dict[str, Any]:
    """The fields of a `ServeConfig` that describe the model and its device."""
    from headway.serve.engine.vllm_engine import on_gpu

    return {
        "folder": choice.folder.absolute(),
        "version": choice.version,
        "device": "cuda" if on_gpu() else "cpu",
        "quantization": (choice.manifest and choice.manifest.quantization) or "none",
        "trace": choice.manifest and choice.manifest.trace,
    }


def _run(service: "Service", name: str, version: str, start: float, *, as_json: bool, quiet: bool) -> None:
    """Starts the service, prints where it listens, and serves until it is told to stop.

    Raises:
        ServeError: requests were cut off at the end.
    """
    with TextConsole(stderr=True, quiet=quiet).status("loading") as status:
        ready = service.start(lambda stages: status.update(f"loading: {', '.join(stages)} done"))
    if not ready:
        return
    startup = service.stages() | {"total": round(time.time() - start, 3)}
    document = {"model": name, "version": version, "url": service.url, "startup": startup}
    title = f"{name} (version {version})" if version else name
    result(document, f"{title} is served at {service.url}", as_json=as_json)
    service.supervise()
    show("headway: stopping: running requests finish; a second signal cuts them off", quiet=quiet)
    if not service.drain():
        raise ServeError("stopped, but some running requests were cut off")


def _key_file(path: Path) -> Path:
    """The absolute path of a file of API keys.

    Raises:
        UsageError: the file holds no keys.
    """
    from headway.serve.tenants.key_file import KeyStore

    if not KeyStore(path).load().keys:
        raise UsageError(
            f"{path} has no API key, so no request would be accepted; headway keys add TENANT --file {path}"
        )
    return path.absolute()
