"""`headway job`."""

from dataclasses import asdict
from typing import Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import Json, NewRun, Overrides, Quiet, StoreUrl, choose_store
from headway.cli.screen import result
from headway.errors import UsageError


def job(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Recipe: a YAML file.")] = None,
    overrides: Overrides = None,
    run: NewRun = None,
    *,
    submission: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of RECIPE: a submission in the store.")
    ] = None,
    store: StoreUrl = None,
    nproc: Annotated[int | None, typer.Option(min=1, help="Ranks per node. Default: machine.ranks.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Smallest number of nodes to train on.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train inside a SLURM job, on all its nodes. This is the command that a batch script runs.

    Handles preemption, time limits and lost nodes: has SLURM requeue the job while the run is not done and the job is
    not cancelled. `headway submit` writes such a script; jobs/slurm/pretrain.sbatch is one.

    Example: **headway job recipe.yaml --run first** as the last line of a batch script
    """
    from headway.launch.job import run_job
    from headway.launch.plan import Plan, submission_plan

    destination = choose_store(store)
    if submission:
        if recipe:
            raise UsageError("give a RECIPE, or --submission NAME, not both")
        plan = submission_plan(destination, submission, quiet=quiet)
    elif recipe:
        parsed = recipes.load(recipe, overrides or ())
        plan = Plan(parsed, run or parsed.name, destination, nproc or parsed.machine.ranks, nodes, quiet)
    else:
        raise UsageError("give a RECIPE, or --submission NAME")
    decision = run_job(plan)
    if as_json:
        result({"run": plan.run, **asdict(decision)}, "", as_json=True)
    raise typer.Exit(decision.exit_code)
