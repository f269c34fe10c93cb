"""`headway job`."""

from typing import Annotated

import typer

from headway import recipe as recipes
from headway.cli.options import Overrides, Quiet, StoreUrl, chosen_store
from headway.launch import job as jobs


def job(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file.")],
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option(help="Name of the run. Default: the recipe's name.")] = None,
    *,
    store: StoreUrl = None,
    nproc: Annotated[int | None, typer.Option(min=1, help="Ranks on each machine. Default: machine.ranks.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Wait in the queue rather than train on fewer machines.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Train inside a SLURM job: what a batch script runs, on all machines of its job, until the job may end.

    Survives preemption, time limits and lost machines: asks SLURM to queue the job anew whenever the run is not done
    and nobody cancelled it. `headway submit` writes such a script; jobs/slurm/pretrain.sbatch is one.

    Example: **exec headway job recipe.yaml --run first** as the last line of a batch script
    """
    plan = recipes.load(recipe, overrides or ())
    where = chosen_store(store)
    verdict = jobs.work(
        jobs.Plan(plan, run or plan.name, where, nproc or plan.machine.ranks, least_machines=nodes, quiet=quiet)
    )
    raise typer.Exit(verdict.exit_code)
