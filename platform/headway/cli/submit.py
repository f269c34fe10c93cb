"""`headway submit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headway import recipe as recipes
from headway.cli.options import Json, Overrides, Quiet, StoreUrl, choose_store
from headway.cli.screen import result, show
from headway.errors import UsageError
from headway.launch.resources import resources
from headway.launch.sweep import SweepMember, sweep_members
from headway.objectstore.probe import check_creates
from headway.runs.submissions import Submission
from headway.telemetry import Spans, environment_trace

MACHINES, PLACE = "Machines", "Where in SLURM"


def submit(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file.")],
    overrides: Overrides = None,
    *,
    array: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,C", help="A run for each value, or FILE.yaml, a sweep file. Again: the product."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run, or of the array. Default: the recipe's.")] = None,
    store: StoreUrl = None,
    nodes: Annotated[str, typer.Option(metavar="MIN:MAX", help="Machines for each run.")] = "1",
    gpus: Annotated[
        str | None, typer.Option(metavar="[TYPE:]N", help="GPUs on each machine.", rich_help_panel=MACHINES)
    ] = None,
    nproc: Annotated[
        int | None,
        typer.Option(
            min=1, help="Ranks on each machine. Default: its GPUs, else machine.ranks.", rich_help_panel=MACHINES
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Limit, as SLURM writes it: 90, 12:00:00, 2-00:00:00.", rich_help_panel=MACHINES
        ),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Runs of an array at once, at most.", rich_help_panel=MACHINES)
    ] = None,
    partition: Annotated[str | None, typer.Option(rich_help_panel=PLACE)] = None,
    qos: Annotated[str | None, typer.Option(rich_help_panel=PLACE)] = None,
    account: Annotated[str | None, typer.Option(rich_help_panel=PLACE)] = None,
    constraint: Annotated[str | None, typer.Option(rich_help_panel=PLACE)] = None,
    exclude: Annotated[str | None, typer.Option(metavar="NODES", rich_help_panel=PLACE)] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Anything else, in sbatch's words: mem=64G.", rich_help_panel=PLACE),
    ] = None,
    logs: Annotated[Path, typer.Option(metavar="FOLDER", help="For what jobs print.")] = Path("slurm"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch file; submit nothing.")] = False,
    allow_unfenced: Annotated[
        bool, typer.Option("--allow-unfenced", help="Take a store that ignores the condition of create-only writes.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on SLURM: the same as **headway train**, in one job, or in an array of them.

    A job that is preempted, hits its time limit or loses a machine goes on by itself. The same command again goes on
    with a run that stopped for good.

    Example: **headway submit slm.yaml --nodes 1:4 --gpus 8 --time 2-00:00:00**, and
    **headway submit slm.yaml --array seed=1,2,3 --array train.optimizer.learning_rate=3e-4,1e-3 --parallel 4**
    """
    try:
        from headway.launch import submission
    except ModuleNotFoundError as error:
        raise UsageError(f"headway submit needs {error.name}: pip install 'headway[launch]'") from error
    document = recipes.read(recipe)
    wanted = sweep_members(document, overrides or (), array or (), name)
    asked = resources(
        wanted,
        nodes=nodes,
        nproc=nproc,
        gpus=gpus,
        time=time,
        extra=sbatch or (),
        partition=partition,
        qos=qos,
        account=account,
        constraint=constraint,
        exclude=exclude,
        parallel=parallel,
    )
    chosen = choose_store(store)
    whole = name or wanted[0].recipe.name
    with (
        Spans("headway-submit", trace=environment_trace(), on=not dry_run) as spans,
        spans.span("launch.submit", submission=whole, runs=[member.run for member in wanted]) as span,
    ):
        folder = logs.expanduser().absolute()
        composed = submission.compose(
            chosen, whole, document, wanted, asked, array=bool(array), logs=folder, trace=span.trace
        )
        _look_for_data(wanted)
        if dry_run:
            result(_document(composed), composed.sbatch.rstrip(), as_json=as_json)
            return
        if not allow_unfenced:
            check_creates(chosen)
        done = submission.submit(chosen, composed, asked)
        span.set(job=done.job)
    runs = f"{len(wanted)} runs" if done.array else f"run {whole}"
    result(_document(done), f"{done.job}", as_json=as_json)
    show(
        f"headway: submitted {runs} as job {done.job}; headway status {whole} tells how far it is",
        quiet=quiet,
    )


def _look_for_data(wanted: list[SweepMember]) -> None:
    """Warn of data that nobody built, as far as can be seen from here."""
    for path in dict.fromkeys(member.recipe.data_path for member in wanted):
        if not Path(path, "manifest.json").is_file():
            show(
                f"headway: there is no data in {Path(path).absolute()}; unless the compute nodes have it there, build "
                f"it first: headway data build"
            )


def _document(submission: Submission) -> dict[str, Any]:
    return {
        "submission": submission.name,
        "job": submission.job,
        "cluster": submission.cluster,
        "store": submission.store,
        "runs": [member.run for member in submission.members],
        "nodes": [submission.nodes_min, submission.nodes_max],
        "ranks": submission.ranks,
        "trace": submission.trace,
        "logs": submission.logs,
        "sbatch": submission.sbatch,
    }
