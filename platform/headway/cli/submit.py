"""`headway submit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headway import recipe as recipes
from headway.cli.options import AllowUnfenced, FromTokens, Json, Overrides, Quiet, RecipePath, StoreUrl, choose_store
from headway.cli.screen import result, show
from headway.errors import UsageError
from headway.launch.resources import plan_resources
from headway.launch.sweep import SweepMember, sweep_members
from headway.localfiles import local_path
from headway.objectstore.probe import check_creates
from headway.runs.submissions import Submission

NODES, PLACEMENT = "Nodes", "Placement in SLURM"
"""Panels of the help."""

Array = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=A,B,C", help="A run for each value, or FILE.yaml, a sweep file. Repeat it for the product."
    ),
]
SubmissionName = Annotated[str | None, typer.Option(help="Name of the run or array. Default: the recipe's name.")]
NodeRange = Annotated[str, typer.Option(metavar="MIN:MAX", help="Nodes per run.")]
Gpus = Annotated[str | None, typer.Option(metavar="[TYPE:]N", help="GPUs per node.", rich_help_panel=NODES)]
Ranks = Annotated[
    int | None,
    typer.Option(min=1, help="Ranks per node. Default: its GPUs, else machine.ranks.", rich_help_panel=NODES),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Time limit as in SLURM: 90, 12:00:00, 2-00:00:00.", rich_help_panel=NODES),
]
Parallel = Annotated[
    int | None, typer.Option(min=1, help="Largest number of an array's runs at once.", rich_help_panel=NODES)
]
Partition = Annotated[str | None, typer.Option(help="Partition, as for sbatch.", rich_help_panel=PLACEMENT)]
Qos = Annotated[str | None, typer.Option(help="Quality of service, as for sbatch.", rich_help_panel=PLACEMENT)]
Account = Annotated[str | None, typer.Option(help="Account, as for sbatch.", rich_help_panel=PLACEMENT)]
Constraint = Annotated[str | None, typer.Option(help="Node features, as for sbatch.", rich_help_panel=PLACEMENT)]
Exclude = Annotated[
    str | None, typer.Option(metavar="NODES", help="Nodes to avoid, as for sbatch.", rich_help_panel=PLACEMENT)
]
SbatchOptions = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Any other option of sbatch: mem=64G.", rich_help_panel=PLACEMENT),
]
Logs = Annotated[Path, typer.Option(parser=local_path, metavar="FOLDER", help="Folder for the jobs' output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the batch file and submit nothing.")]


def submit(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    array: Array = None,
    name: SubmissionName = None,
    store: StoreUrl = None,
    nodes: NodeRange = "1",
    gpus: Gpus = None,
    nproc: Ranks = None,
    time: TimeLimit = None,
    parallel: Parallel = None,
    partition: Partition = None,
    qos: Qos = None,
    account: Account = None,
    constraint: Constraint = None,
    exclude: Exclude = None,
    sbatch: SbatchOptions = None,
    logs: Logs = Path("slurm"),
    from_tokens: FromTokens = None,
    dry_run: DryRun = False,
    allow_unfenced: AllowUnfenced = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on SLURM: the same as **headway train**, as one job or as an array of jobs.

    A job that is preempted, reaches its time limit or loses a node continues by itself. To continue a run whose job
    has ended, run the same command again.

    Example: **headway submit slm.yaml --nodes 1:4 --gpus 8 --time 2-00:00:00**, and
    **headway submit slm.yaml --array seed=1,2,3 --array train.optimizer.learning_rate=3e-4,1e-3 --parallel 4**
    """
    try:
        from headway.launch.submission import SubmissionRequest
    except ModuleNotFoundError as error:
        raise UsageError(f"headway submit needs {error.name}: pip install 'headway[launch]'") from error
    document, destination = recipes.read(recipe), choose_store(store)
    members = sweep_members(document, overrides or (), array or (), name)
    place: dict[str, Any] = {"partition": partition, "qos": qos, "account": account, "constraint": constraint}
    place |= {"exclude": exclude, "parallel": parallel}
    resources = plan_resources(members, nodes=nodes, nproc=nproc, gpus=gpus, time=time, sbatch=sbatch or (), **place)
    folder, title = logs.absolute(), name or members[0].recipe.name
    request = SubmissionRequest(destination, title, document, members, resources, array=bool(array), logs=folder)
    _warn_missing_data(members)
    if from_tokens is not None and array:
        raise UsageError("--from-tokens is for one run; submit the runs of the array that go back one by one")
    if dry_run:
        composed = request.compose()
        result(_document(composed), composed.sbatch.rstrip(), as_json=as_json)
        return
    if not allow_unfenced:
        check_creates(destination)
    _report(request.submit(from_tokens), as_json=as_json, quiet=quiet)


def _warn_missing_data(members: list[SweepMember]) -> None:
    """Warns of data that is not built on this machine."""
    for path in dict.fromkeys(member.recipe.data_path for member in members):
        if not Path(path, "manifest.json").is_file():
            show(
                f"headway: there is no data in {Path(path).absolute()}; unless the compute nodes have it there, "
                f"build it first: headway data build"
            )


def _report(submission: Submission, *, as_json: bool, quiet: bool) -> None:
    """Prints what was submitted."""
    name = submission.name
    runs = f"{len(submission.members)} runs" if submission.array else f"run {name}"
    result(_document(submission), f"{submission.job}", as_json=as_json)
    show(f"headway: submitted {runs} as job {submission.job}; headway status {name} shows the progress", quiet=quiet)


def _document(submission: Submission) -> dict[str, Any]:
    """A submission for `--json`."""
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
