"""`headway train`."""

import dataclasses
import os
import sys
from typing import Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet, StoreUrl, choose_store
from headway.cli.screen import result, show
from headway.errors import UsageError
from headway.objectstore.probe import check_creates
from headway.telemetry.exposition import exposure_from_environment

MACHINES = "Several machines"


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file.")],
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option(help="Name of the run. Default: the recipe's name.")] = None,
    *,
    store: StoreUrl = None,
    nproc: Annotated[int | None, typer.Option(min=1, help="Ranks on this machine. Default: machine.ranks.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="How many machines train together.", rich_help_panel=MACHINES)] = 1,
    node: Annotated[
        int | None,
        typer.Option(min=0, help="Which of them this is. Default: SLURM_NODEID, else 0.", rich_help_panel=MACHINES),
    ] = None,
    launch: Annotated[
        str | None, typer.Option(help="An id that all of them are given, each time another.", rich_help_panel=MACHINES)
    ] = None,
    allow_unfenced: Annotated[
        bool, typer.Option("--allow-unfenced", help="Take a store that ignores the condition of create-only writes.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS:]PORT",
            help="Show /metrics to Prometheus; 0: any free port. Default: HEADWAY_METRICS, else none.",
            show_default=False,
        ),
    ] = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Fence off whoever trains this run now.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train here. Creates the run, or resumes it from its last checkpoint: the same command does both.

    Ctrl-C, SIGTERM and SIGUSR1 save and leave with code 75: run the same command again to go on, with any --nproc.

    Example: **headway train jobs/recipes/quickstart.yaml train.tokens=200000 --run first --nproc 2**
    """
    from headway.train import launcher

    if nodes > 1 and launch is None:
        raise UsageError(
            "several machines find each other by --launch: give all of them the same, and a new one each time"
        )
    place = 0 if nodes == 1 else node if node is not None else int(os.environ.get("SLURM_NODEID", "0"))
    if place >= nodes:
        raise UsageError(f"--node {place} is not one of {nodes} machines; they count from 0")
    exposure = exposure_from_environment(metrics)
    plan = recipes.load(recipe, overrides or ())
    name, ranks, where = run or plan.name, nproc or plan.machine.ranks, choose_store(store)
    show(f"headway: run {name} in {where.url}: starting {ranks} ranks", quiet=quiet or not sys.stderr.isatty())
    if not allow_unfenced:
        check_creates(where)
    outcome = launcher.launch(
        plan,
        name,
        where,
        ranks=ranks,
        node=place,
        nodes=nodes,
        launch_id=launch,
        take_over=take_over,
        quiet=quiet,
        exposure=exposure,
    )
    more = "; the same command goes on" if outcome.outcome == "preempted" else ""
    show(
        f"headway: run {name}: {outcome.outcome} at {outcome.tokens:,} tokens: {outcome.reason}{more}",
        quiet=(quiet or place > 0) and outcome.outcome != "failed",
    )
    if as_json:
        result({"run": name, **dataclasses.asdict(outcome)}, "", as_json=True)
    if outcome.alone:
        from headway.launch.orphan import requeue_orphan

        requeue_orphan(name)
    raise typer.Exit(outcome.exit_code)
