"""`headway keys`: API keys and quotas for those who may ask an endpoint."""

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Quiet
from headway.cli.screen import ago, result, show, table
from headway.errors import UsageError

app = typer.Typer(
    help="API keys for `headway serve --keys FILE`: made, listed, limited, revoked; a running endpoint follows.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

File = Annotated[Path, typer.Option("--file", metavar="FILE", help="Where digests of keys and quotas are kept.")]
FILE = Path("keys.json")


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Who the key is for.")],
    *,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept.

    Example: **headway keys add team-a**
    """
    from headway.serve.tenants import KeyStore

    key = KeyStore(file).add(tenant)
    result({"tenant": tenant, "key": key, "file": str(file)}, key, as_json=as_json)
    show(f"headway: shown this once; headway serve --keys {file} lets it in", quiet=quiet)


@app.command("ls")
def ls(*, file: File = FILE, as_json: Json = False, quiet: Quiet = False) -> None:
    """List keys by their names, which tell nothing of them, and what their tenants may use by the minute.

    Example: **headway keys ls --file keys.json**
    """
    from headway.serve.tenants import KeyStore, Quota

    roll = KeyStore(file).load()
    known = [(key.name, key.tenant, key.created) for key in roll.keys]
    keyless = [(None, tenant, None) for tenant in roll.tenants if tenant not in {key.tenant for key in roll.keys}]
    document = [
        {"key": name, "tenant": tenant, "created": created, **roll.quotas.get(tenant, Quota()).model_dump()}
        for name, tenant, created in (*known, *keyless)
    ]
    if not document:
        show(f"no keys in {file} yet; make one: headway keys add TENANT --file {file}", quiet=quiet)
    rows = [
        [
            each["key"] or "-",
            each["tenant"],
            ago(each["created"]) if each["created"] else "-",
            *(f"{each[limit]:,}" if each[limit] else "-" for limit in Quota.model_fields),
        ]
        for each in document
    ]
    columns = ("key", "tenant", "made", ">requests/min", ">tokens/min")
    if document or as_json:
        result(document, table(columns, rows), as_json=as_json)


@app.command()
def limit(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose quota it is.")],
    *,
    requests: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Requests a minute; 0 takes the limit away.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Tokens a minute, prompts and answers; 0 takes it away.")
    ] = None,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Set what a tenant may use by the minute; a running endpoint follows within a second or two.

    What is not given stays as it was.

    Example: **headway keys limit team-a --requests 600 --tokens 100000**
    """
    from headway.serve.tenants import KeyStore

    if requests is None and tokens is None:
        raise UsageError("say what is limited: --requests N, --tokens N, or both; 0 takes a limit away")
    quota = KeyStore(file).limit(tenant, requests=requests, tokens=tokens)
    limits = {"requests": quota.requests_per_minute, "tokens": quota.tokens_per_minute}
    may = " and ".join(f"{amount:,} {what}" for what, amount in limits.items() if amount)
    document = {"tenant": tenant, **quota.model_dump(), "file": str(file)}
    if as_json or not quiet:
        shown = f"{tenant} may use {may} a minute" if may else f"{tenant} may use as much as it likes"
        result(document, shown, as_json=as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its name, as `headway keys ls` shows it.")],
    *,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a key away; a running endpoint refuses it within a second or two. Its tenant's quota stays.

    Example: **headway keys revoke 1a2b3c4d**
    """
    from headway.serve.tenants import KeyStore

    gone = KeyStore(file).revoke(key)
    document = {"key": gone.name, "tenant": gone.tenant, "file": str(file)}
    if as_json or not quiet:
        result(document, f"{gone.name} of {gone.tenant} is revoked", as_json=as_json)
