"""What lies beside a forged store and is none of its business: a home folder, another store, and a process."""

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path

from headway import recipe as recipes
from headway.objectstore.folder import FolderStore
from headway.runs import Holder, keys
from headway.runs.submissions import Member, Submission, save
from tests.forger.folder_copy import FolderCopy, Tree, remove, tree
from tests.forger.forger import HALF
from tests.unit.cli.story import Story, plan, trained

AT = "1970-01-01T00:00:00+00:00"
STORED = Path(__file__).parents[1] / "stored"


class Neighbours:
    """All of it, below `folder`."""

    def __init__(self, folder: Path, store: Path) -> None:
        """`store` is where the forged store will lie: in a folder, or behind a server of buckets."""
        self.in_bucket = store.parent != folder
        self.home = folder / "home"
        self.secret = secrets.token_hex(16)
        """Stands in every file of the home folder, and nowhere else."""
        self._furnish()
        trained(Story(FolderStore(folder / "precious"), "precious"))
        self.canary = subprocess.Popen(["sleep", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sound_store(folder / "sound", self.canary.pid)
        self.store = FolderCopy(folder / "sound", store)
        """What is forged."""
        self.target = FolderCopy(folder / "precious", folder / "target")
        """The store that runs are copied to."""
        self.desk = folder / "desk"
        """The working directory, with the data of the stored run."""
        shutil.copytree(STORED / "data", self.desk / "data")
        self.work = folder / "work"
        self.work.mkdir()
        self.state = self.trees()

    def trees(self) -> Tree:
        """The state of what no command may change."""
        return tree(self.home) | tree(self.home.parent / "precious") | tree(self.desk)

    def restore(self) -> None:
        """Make the stores what they were, and the folder of results empty."""
        self.store.restore()
        self.target.restore()
        for path in self.work.iterdir():
            remove(path)

    def close(self) -> None:
        """End the process."""
        self.canary.kill()
        self.canary.wait()

    def _furnish(self) -> None:
        """Give the home folder what the store has, by the same names, for links to lead to."""
        line = json.dumps({"event": "attempt.ended", "timestamp": AT, "level": "info", "reason": self.secret}) + "\n"
        checkpoint = "checkpoints/000000000002000-00000001"
        for name in (
            *("notes.json", ".ssh/id", "heartbeat.json", "recipe.yaml", "log/00000001/00000000.jsonl", HALF),
            *("journal/00000001.json", "ledger/00000001.jsonl", f".incoming/{HALF[::-1]}"),
            *(f"{checkpoint}/manifest.json", f"{checkpoint}/00000-of-00002.safetensors"),
            *(f"runs/tale/{checkpoint}/00000-of-00002.safetensors", "runs/tale/log/00000001/00000000.jsonl"),
        ):
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(line)
            os.utime(path, (1e9, 1e9))  # older than any limit


def sound_store(root: Path, pid: int) -> None:
    """A store with runs, a model and a submission, and garbage. `pid` holds a run, so it says."""
    shutil.copytree(STORED / "store", root)
    store = FolderStore(root)
    trained(Story(store, "good"))
    tale = trained(Story(store, "tale"))
    store.put(f"{keys.checkpoint('tale', 9000, 1)}00000-of-00002.safetensors", [bytes(1000)])
    store.put(f"{keys.checkpoint('tale', 9000, 1)}00001-of-00002.safetensors", [bytes(500)])
    tale.decide(230, "skip", 1000, 2000)
    open_run = OpenStory(store, "open")
    open_run.pid = pid
    open_run.claim(100)
    open_run.commit(105, 1000)
    open_run.commit(106, 2000)
    open_run.prune(107, 1000)
    open_run.beat(108, 2000)
    save(store, submission("good.a", "good.b"))
    save(store, submission("open"))
    half = root / ".incoming" / HALF[::-1]
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    os.utime(half, (1e9, 1e9))


class OpenStory(Story):
    """A run that a process of this machine holds."""

    pid = 0

    @property
    def holder(self) -> Holder:
        """The process."""
        return Holder(host=os.uname().nodename, pid=self.pid, started=1, launch="launch")


def submission(*runs: str) -> Submission:
    """A submission of some runs, that SLURM has accepted."""
    texts = {"recipe": recipes.to_yaml(plan()), "trace": "t", "store": "s", "sbatch": "", "logs": "l"}
    place = {"cluster": None, "user": "u", "host": "h", "folder": "/", "time": 1.0}
    return Submission.model_validate(
        {
            **(texts | place),
            "name": runs[0].partition(".")[0],
            "nodes_min": 1,
            "nodes_max": 1,
            "ranks": 1,
            "array": len(runs) > 1,
            "members": [Member(run=run, overrides=[]) for run in runs],
            "sent": [{"job": "7", "time": 1.0}],
        }
    )
