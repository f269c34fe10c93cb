"""What a job trains: built from a recipe, or read from a stored submission."""

import os
import socket
from dataclasses import dataclass

from headway import recipe as recipes
from headway.errors import UsageError
from headway.objectstore import Store
from headway.recipe import Recipe
from headway.runs import submissions


@dataclass(frozen=True)
class Plan:
    """What a job trains, and on how many ranks."""

    recipe: Recipe
    run: str
    store: Store
    ranks: int
    """Ranks per node."""
    min_nodes: int = 1
    """With fewer usable nodes the job is requeued."""
    quiet: bool = False


def submission_plan(store: Store, name: str, *, quiet: bool = False) -> Plan:
    """The plan of the submission `name`; for an array, of the member with this job's array index.

    Raises:
        UsageError: the store has no such submission, or the array has no such member.
    """
    submission = submissions.find(store, name)
    if submission is None:
        raise UsageError(
            f"{socket.gethostname()} finds no submission {name} in {store.url}, though this job was submitted with it: "
            f"the URL names another store here. A folder must be on a file system that all nodes share; "
            f"or use s3://bucket/prefix"
        )
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")) if submission.array else 0
    if index >= len(submission.members):
        raise UsageError(f"submission {name} has {len(submission.members)} members, from 0; there is no member {index}")
    member = submission.members[index]
    recipe = recipes.parse(submission.recipe, origin=f"the recipe of {name}", overrides=member.overrides)
    return Plan(recipe, member.run, store, submission.ranks, submission.nodes_min, quiet)
