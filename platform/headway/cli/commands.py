"""All commands of `headway`, in the order of the help. Each module holds the commands of one subject.

Light to import: commands import torch, numpy and matplotlib only when they need them.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from headway.cli.checkpoint import fingerprint, verify
from headway.cli.data import app as data_app
from headway.cli.export import export
from headway.cli.job import job
from headway.cli.keys import app as keys_app
from headway.cli.ledger import goodput, ledger
from headway.cli.logs import logs
from headway.cli.plot import plot
from headway.cli.publish import publish
from headway.cli.quantize import quantize
from headway.cli.queue import cancel, requeue
from headway.cli.recipe import app as recipe_app
from headway.cli.registry import alias, models
from headway.cli.runs import runs
from headway.cli.serve import serve
from headway.cli.status import status
from headway.cli.store import app as store_app
from headway.cli.submit import submit
from headway.cli.train import train

PANELS = {
    "Train": (train, submit),
    "Follow": (runs, status, logs),
    "Steer, on SLURM": (cancel, requeue, job),
    "Measure": (ledger, goodput, plot),
    "Verify and export": (verify, fingerprint, export),
    "Release": (publish, models, alias, quantize),
    "Serve": (serve,),
}
"""Commands by panel of the help, in the order of a typical workflow."""
GROUPS = {
    "Serve": {"keys": keys_app},
    "Prepare": {"recipe": recipe_app, "data": data_app},
    "Maintain": {"store": store_app},
}
"""Groups of commands by panel of the help."""


class OrderedGroup(TyperGroup):
    """Lists the commands in the order of `PANELS`; typer by itself lists groups first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        ordered = [command.__name__ for commands in PANELS.values() for command in commands]
        return [*ordered, *(name for name in super().list_commands(ctx) if name not in ordered)]


app = typer.Typer(
    cls=OrderedGroup,
    help="Pretrain language models without ever losing progress.\n\n"
    "Start with **headway train RECIPE**. If it is stopped or killed, the same command continues. "
    "Each command has its own --help.",
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
