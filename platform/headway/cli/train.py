"""`headway train`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import (
    AllowUnfenced,
    FromTokens,
    Json,
    NewRun,
    Overrides,
    Quiet,
    RecipePath,
    StoreUrl,
    choose_store,
)
from headway.cli.screen import result, show
from headway.errors import UsageError
from headway.objectstore.probe import check_creates
from headway.runs import keys
from headway.telemetry.metrics_server import metrics_config

if TYPE_CHECKING:
    from headway.train.host.outcome import Outcome

NODES = "Several nodes"
"""Panel of the help."""

Ranks = Annotated[int | None, typer.Option(min=1, help="Ranks on this node. Default: machine.ranks.")]
NodeCount = Annotated[int, typer.Option(min=1, help="Number of nodes that train together.", rich_help_panel=NODES)]
NodeIndex = Annotated[
    int | None,
    typer.Option(min=0, help="Index of this node. Default: SLURM_NODEID, else 0.", rich_help_panel=NODES),
]
LaunchId = Annotated[
    str | None, typer.Option(help="Launch ID shared by all nodes; unique per launch.", rich_help_panel=NODES)
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS:]PORT",
        help="Serve /metrics for Prometheus; 0 picks a free port. Default: HEADWAY_METRICS, else none.",
        show_default=False,
    ),
]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Fence off the process that trains this run now.")]


def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    run: NewRun = None,
    *,
    store: StoreUrl = None,
    nproc: Ranks = None,
    nodes: NodeCount = 1,
    node: NodeIndex = None,
    launch: LaunchId = None,
    from_tokens: FromTokens = None,
    allow_unfenced: AllowUnfenced = False,
    metrics: Metrics = None,
    take_over: TakeOver = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on this machine. Creates the run, or resumes it from its last checkpoint.

    Ctrl-C, SIGTERM and SIGUSR1 save and exit with code 75. The same command then continues, with any --nproc.

    --from-tokens goes back to a checkpoint of the run and continues from there. The run's history records who decided
    it, and no later command continues from the checkpoints that came after.

    Example: **headway train jobs/recipes/quickstart.yaml train.tokens=400000 --run first --nproc 2**
    """
    from headway.train.host import launcher

    index = _node_index(node, nodes, launch)
    exposure = metrics_config(metrics)
    plan = recipes.load(recipe, overrides or ())
    name, destination = keys.check_name(run or plan.name), choose_store(store)
    ranks = nproc or plan.machine.ranks
    show(f"headway: run {name} in {destination.url}: starting {ranks} ranks", quiet=quiet or not sys.stderr.isatty())
    if not allow_unfenced:
        check_creates(destination)
    outcome = launcher.launch(
        plan,
        name,
        destination,
        ranks=ranks,
        node=index,
        nodes=nodes,
        launch_id=launch,
        take_over=take_over,
        from_tokens=from_tokens,
        quiet=quiet,
        exposure=exposure,
    )
    command = "the same command" if from_tokens is None else "the same command without --from-tokens"
    show(_sentence(name, outcome, command), quiet=(quiet or index > 0) and outcome.outcome != "failed")
    if as_json:
        result({"run": name, **outcome.as_json()}, "", as_json=True)
    if outcome.head_lost:
        from headway.launch.orphan import requeue_orphan

        requeue_orphan(name)
    raise typer.Exit(outcome.exit_code)


def _sentence(run: str, outcome: "Outcome", command: str) -> str:
    """The outcome in words, and the `command` that continues, if any does."""
    hint = f"; {command} continues" if outcome.outcome == "preempted" else ""
    return f"headway: run {run}: {outcome.outcome} at {outcome.tokens:,} tokens: {outcome.reason}{hint}"


def _node_index(node: int | None, nodes: int, launch: str | None) -> int:
    """Index of this node among `nodes`.

    Raises:
        UsageError: several nodes have no launch ID, or the index is out of range.
    """
    if nodes > 1 and launch is None:
        raise UsageError("several nodes find each other by --launch: pass the same ID on all nodes, unique per launch")
    index = 0 if nodes == 1 else node if node is not None else int(os.environ.get("SLURM_NODEID", "0"))
    if index >= nodes:
        raise UsageError(f"--node {index} is out of range for {nodes} nodes; nodes count from 0")
    return index
