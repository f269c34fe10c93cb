"""`headway keys`: API keys and quotas of an endpoint's tenants."""

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Quiet
from headway.cli.screen import ago, result, show, table
from headway.errors import UsageError
from headway.localfiles import local_path

app = typer.Typer(
    help="Manage API keys and quotas for `headway serve --keys FILE`. A running endpoint picks up changes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

File = Annotated[
    Path, typer.Option("--file", parser=local_path, metavar="FILE", help="File of key digests and quotas.")
]
FILE = Path("keys.json")


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Tenant that uses the key.")],
    *,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create a key and print it. It is shown only once: the file stores its digest.

    Example: **headway keys add team-a**
    """
    from headway.serve.tenants.key_file import KeyStore

    key = KeyStore(file).add(tenant)
    result({"tenant": tenant, "key": key, "file": str(file)}, key, as_json=as_json)
    show(f"headway: the key is shown only once; headway serve --keys {file} accepts it", quiet=quiet)


@app.command("ls")
def ls(*, file: File = FILE, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the names of the keys (not the keys), their tenants, and the tenants' limits per minute.

    Example: **headway keys ls --file keys.json**
    """
    from headway.serve.tenants.key_file import KeyStore, Quota

    content = KeyStore(file).load()
    with_key = [(key.key_id, key.tenant, key.created) for key in content.keys]
    tenants = {key.tenant for key in content.keys}
    without_key = [(None, tenant, None) for tenant in content.tenants if tenant not in tenants]
    document = [
        {"key": name, "tenant": tenant, "created": created, **content.quotas.get(tenant, Quota()).model_dump()}
        for name, tenant, created in (*with_key, *without_key)
    ]
    if not document:
        show(f"no keys in {file} yet; create one: headway keys add TENANT --file {file}", quiet=quiet)
    rows = [
        [
            each["key"] or "-",
            each["tenant"],
            ago(each["created"]) if each["created"] else "-",
            *(f"{each[limit]:,}" if each[limit] else "-" for limit in Quota.model_fields),
        ]
        for each in document
    ]
    columns = ("key", "tenant", "created", ">requests/min", ">tokens/min")
    if document or as_json:
        result(document, table(columns, rows), as_json=as_json)


@app.command()
def limit(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Tenant whose quota is set.")],
    *,
    requests: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Requests per minute; 0 removes the limit.")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Tokens per minute, prompts plus answers; 0 removes the limit."),
    ] = None,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Set a tenant's limits per minute. A running endpoint applies them within two seconds.

    Limits that are not given stay unchanged.

    Example: **headway keys limit team-a --requests 600 --tokens 100000**
    """
    from headway.serve.tenants.key_file import KeyStore

    if requests is None and tokens is None:
        raise UsageError("nothing to set; give --requests N, --tokens N, or both; 0 removes a limit")
    quota = KeyStore(file).limit(tenant, requests=requests, tokens=tokens)
    limits = {"requests": quota.requests_per_minute, "tokens": quota.tokens_per_minute}
    allowed = " and ".join(f"{amount:,} {unit}" for unit, amount in limits.items() if amount)
    document = {"tenant": tenant, **quota.model_dump(), "file": str(file)}
    if as_json or not quiet:
        text = f"{tenant} may use {allowed} per minute" if allowed else f"{tenant} has no limits"
        result(document, text, as_json=as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the key, as in `headway keys ls`.")],
    *,
    file: File = FILE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Revoke a key. A running endpoint rejects it within two seconds. The tenant's quota stays.

    Example: **headway keys revoke 1a2b3c4d**
    """
    from headway.serve.tenants.key_file import KeyStore

    revoked = KeyStore(file).revoke(key)
    document = {"key": revoked.key_id, "tenant": revoked.tenant, "file": str(file)}
    if as_json or not quiet:
        result(document, f"{revoked.key_id} of {revoked.tenant} is revoked", as_json=as_json)
