"""What a job is to train, from a recipe at hand or from what was submitted."""

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
    """What a job is to train, and on how much."""

    recipe: Recipe
    run: str
    store: Store
    ranks: int
    """On each machine."""
    least_machines: int = 1
    """With fewer the job waits in the queue."""
    quiet: bool = False


def submitted(store: Store, name: str, *, quiet: bool = False) -> Plan:
    """What was submitted as `name`; of an array, the member that this element is.

    Raises:
        UsageError: this machine does not find it, or the array has no such member.
    """
    found = submissions.find(store, name)
    if found is None:
        raise UsageError(
            f"{socket.gethostname()} finds no submission {name} in {store.url}, though this job was submitted with it: "
            f"the store is not the same here. A folder must be on a file system that all machines share; "
            f"or use s3://bucket/prefix"
        )
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")) if found.array else 0
    if index >= len(found.members):
        raise UsageError(f"submission {name} has {len(found.members)} members, from 0; there is no member {index}")
    member = found.members[index]
    recipe = recipes.parse(found.recipe, origin=f"the recipe of {name}", overrides=member.overrides)
    return Plan(recipe, member.run, store, found.ranks, found.nodes_min, quiet)
