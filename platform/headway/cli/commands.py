"""All commands of `headway`, in the order in which one needs them. Each module holds those of one subject.

Light to import: what needs torch, numpy or matplotlib imports it when it is called.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from headway.cli import (
    checkpoint,
    data,
    export,
    job,
    keys,
    ledger,
    logs,
    plot,
    quantize,
    queue,
    recipe,
    registry,
    runs,
    serve,
    status,
    store,
    submit,
    train,
)

PANELS = {
    "Train": (train.train, submit.submit),
    "Follow": (runs.runs, status.status, logs.logs),
    "Steer, on SLURM": (queue.cancel, queue.requeue, job.job),
    "Where the time went, and what was learnt": (ledger.ledger, ledger.goodput, plot.plot),
    "Trust, and take away": (checkpoint.verify, checkpoint.fingerprint, export.export),
    "Release": (registry.publish, registry.models, registry.alias, quantize.quantize),
    "Serve": (serve.serve,),
}
"""Commands by panel of the help, in the order in which one needs them."""
GROUPS = {
    "Serve": {"keys": keys.app},
    "Prepare": {"recipe": recipe.app, "data": data.app},
    "Keep": {"store": store.app},
}
"""Groups of commands by panel."""


class Taught(TyperGroup):
    """The commands in our order; typer by itself puts groups first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        first = [command.__name__ for commands in PANELS.values() for command in commands]
        return [*first, *(name for name in super().list_commands(ctx) if name not in first)]


app = typer.Typer(
    cls=Taught,
    help="Pretrain language models without ever losing progress.\n\n"
    "Begin with **headway train RECIPE**; when it is stopped or killed, the same command goes on. "
    "Every command tells more with --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for panel, groups in GROUPS.items():
    for name, group in groups.items():
        app.add_typer(group, name=name, rich_help_panel=panel)
