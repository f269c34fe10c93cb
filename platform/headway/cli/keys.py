"""`headway keys`: API keys for those who may ask an endpoint."""

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Quiet
from headway.cli.screen import ago, result, table

app = typer.Typer(
    help="API keys for `headway serve --keys FILE`: made, listed, revoked; a running endpoint follows.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

File = Annotated[Path, typer.Option("--file", metavar="FILE", help="Where the keys' digests are kept.")]
FILE = Path("keys.json")


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Who the key is for.")],
    *,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,  # noqa: ARG001 - every command has it
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept.

    Example: **headway keys add team-a**
    """
    from headway.serve.tenants import Keys

    key = Keys(file).add(tenant)
    result({"tenant": tenant, "key": key, "file": str(file)}, key, as_json=as_json)


@app.command("ls")
def ls(*, file: File = FILE, as_json: Json = False, quiet: Quiet = False) -> None:  # noqa: ARG001 - every command has it
    """List keys by their names, which tell nothing of them.

    Example: **headway keys ls --file keys.json**
    """
    from headway.serve.tenants import Keys

    keys = Keys(file).read()
    document = [{"key": key.name, "tenant": key.tenant, "created": key.created} for key in keys]
    rows = [[key.name, key.tenant, ago(key.created)] for key in keys]
    result(document, table(("key", "tenant", "made"), rows), as_json=as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its name, as `headway keys ls` shows it.")],
    *,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,  # noqa: ARG001 - every command has it
) -> None:
    """Take a key away; a running endpoint refuses it within a second or two.

    Example: **headway keys revoke 1a2b3c4d**
    """
    from headway.serve.tenants import Keys

    gone = Keys(file).revoke(key)
    document = {"key": gone.name, "tenant": gone.tenant, "file": str(file)}
    result(document, f"{gone.name} of {gone.tenant} is revoked", as_json=as_json)
