"""`headway job`."""

from dataclasses import asdict
from typing import Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet, StoreUrl, choose_store
from headway.cli.screen import result
from headway.errors import UsageError


def job(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="A recipe: one YAML file.")] = None,
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option(help="Name of the run. Default: the recipe's name.")] = None,
    *,
    submission: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of RECIPE: what headway submit left in the store.")
    ] = None,
    store: StoreUrl = None,
    nproc: Annotated[int | None, typer.Option(min=1, help="Ranks on each machine. Default: machine.ranks.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Wait in the queue rather than train on fewer machines.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train inside a SLURM job: what a batch script runs, on all machines of its job, until the job may end.

    Survives preemption, time limits and lost machines: asks SLURM to queue the job anew whenever the run is not done
    and nobody cancelled it. `headway submit` writes such a script; jobs/slurm/pretrain.sbatch is one.

    Example: **headway job recipe.yaml --run first** as the last line of a batch script
    """
    from headway.launch.job import run_job
    from headway.launch.plan import Plan, submitted

    where = choose_store(store)
    if submission:
        if recipe:
            raise UsageError("give a RECIPE, or --submission NAME, not both")
        plan = submitted(where, submission, quiet=quiet)
    elif recipe:
        chosen = recipes.load(recipe, overrides or ())
        plan = Plan(chosen, run or chosen.name, where, nproc or chosen.machine.ranks, nodes, quiet)
    else:
        raise UsageError("give a RECIPE, or --submission NAME")
    verdict = run_job(plan)
    if as_json:
        result({"run": plan.run, **asdict(verdict)}, "", as_json=True)
    raise typer.Exit(verdict.exit_code)
