"""On a real SLURM cluster, an array of runs, jobs of changing size, and what cannot work where the job runs."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.engines.s3.server import S3Server
from tests.engines.slurm.cluster import Cluster
from tests.engines.slurm.hosts import available
from tests.integration.site import LONG, Site, Submitted
from tests.integration.training import Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spread,
    pytest.mark.skipif(not available(), reason="machines of their own need root and network namespaces"),
]
SEED = int(os.environ.get("HEADWAY_KILL_SEED", "20261121"))
RUNS = int(os.environ.get("HEADWAY_ARRAY_RUNS", "3"))
PREEMPTIONS = int(os.environ.get("HEADWAY_ARRAY_PREEMPTIONS", "2"))


@pytest.fixture
def site(built: Path, tmp_path: Path) -> Iterator[Site]:
    """A cluster of three machines, and a store in a folder that they share."""
    with Cluster(tmp_path / "slurm", 3, hosts=True) as cluster:
        yield Site(cluster, Place(built / "tiny.yaml", tmp_path / "store"), tmp_path)


@pytest.fixture
def s3_site(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A cluster of three machines, and a store on a real S3 server that they reach."""
    (tmp_path / "s3").mkdir()
    with (
        Cluster(tmp_path / "slurm", 3, hosts=True) as cluster,
        S3Server(tmp_path / "s3", host=cluster.address) as server,
    ):
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield Site(cluster, Place(built / "tiny.yaml", tmp_path, url=f"{server.url}/array"), tmp_path)


@pytest.mark.xdist_group("array")
def test_an_array_under_random_preemption_ends_as_its_twins(s3_site: Site) -> None:
    """Runs on three machines, preempted at random: all end by themselves, each as its undisturbed twin."""
    site, dice = s3_site, random.Random(SEED)
    seeds = [str(seed) for seed in range(1, RUNS + 1)]
    twins = {}
    for seed in seeds:
        assert site.place.train(f"twin-{seed}", *LONG, f"seed={seed}").process.returncode == 0
        twins[seed] = site.place.fingerprint(f"twin-{seed}")
    words = ["submit", str(site.place.recipe), *LONG, "--name", "sweep", "--array", f"seed={','.join(seeds)}"]
    array = site.run(*words, "--logs", str(site.logs), "--parallel", "2")["job"]
    watched = Submitted(site, "sweep", array)
    for number in range(PREEMPTIONS):
        enough = 10 * RUNS * (number + 1)
        watched.await_that(partial(_trained, site, enough), f"preemption {number}")
        victims = dice.sample(["node1", "node2", "node3"], dice.randint(1, 2))
        words = ["sbatch", "--partition=high", f"--nodelist={','.join(victims)}", "--exclusive", "--output=/dev/null"]
        site.cluster.client(*words, "--wrap", "true")
    for index in range(RUNS):
        site.cluster.await_job(f"{array}_{index}", {"COMPLETED", "FAILED", "CANCELLED"}, 600)
    members = {row["run"]: row for row in site.run("status", "sweep")["members"]}
    assert {row["state"] for row in members.values()} == {"done"}
    assert sum(row["preemptions"] for row in members.values()) > 0
    assert {seed: site.place.fingerprint(f"sweep.seed-{seed}") for seed in seeds} == twins
    assert len(set(twins.values())) == RUNS
    for run in members:
        assert site.place.history(run).attempts[-1].outcome == "done"


def _trained(site: Site, steps: int) -> bool:
    """Whether the array's jobs have logged so many steps, together."""
    logs = [path.read_text(errors="replace") for path in site.logs.glob("sweep-*.out")]
    return sum(log.count('"step.done"') for log in logs) >= steps


def test_a_run_ends_with_the_same_bits_on_one_two_and_four_ranks(site: Site, uninterrupted: str) -> None:
    """It begins on the one machine that is free, is queued anew and finds two, and goes on with two ranks on each."""
    words = ["sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
    guest = site.cluster.client(*words, "--wrap", "sleep 600")
    site.cluster.await_job(guest, {"RUNNING"})
    options = [*LONG, "machine.hang_seconds=600.0"]
    job = site.submit("run", *options, options=["--nodes", "1:2"])
    job.await_steps(5)
    job.freeze()
    site.cluster.client("scancel", guest)
    site.cluster.client("scontrol", "requeue", job.job)
    job.await_steps(5, attempt=2)
    job.freeze()
    job.cancel()
    job.await_end("CANCELLED")
    again = site.submit("run", *options, options=["--nodes", "2", "--nproc", "2"])
    again.await_end()
    claims = [*job.named("attempt.claimed"), *again.named("attempt.claimed")]
    assert [claim["ranks"] for claim in claims] == [1, 2, 4]
    assert site.place.fingerprint("run") == uninterrupted


def test_a_store_that_the_machines_do_not_reach_is_named(built: Path, tmp_path: Path, s3: S3Server) -> None:
    """The S3 server answers on the login node only: the job says so, and SLURM says that it failed."""
    with Cluster(tmp_path / "slurm", 1, hosts=True) as cluster:
        url = f"{s3.url}/unreachable?budget_seconds=4&timeout_seconds=1"
        site = Site(cluster, Place(built / "tiny.yaml", tmp_path, url=url), tmp_path)
        job = site.submit("run")
        job.await_end("FAILED")
        assert s3.endpoint in job.log


def test_a_recipe_that_is_missing_where_the_job_runs_is_named(built: Path, tmp_path: Path) -> None:
    """By hand, with a path that this machine does not have: code 2, and the path."""
    with Cluster(tmp_path / "slurm", 1, hosts=True) as cluster:
        site = Site(cluster, Place(built / "tiny.yaml", tmp_path / "store"), tmp_path)
        command = f"{sys.executable} -m headway.cli job /nowhere/recipe.yaml --store {site.place.objects.url}"
        script, log = site.logs / "hand.sbatch", site.logs / "hand-%j.out"
        script.write_text(f"#!/bin/bash\nexec {command}\n")
        job = Submitted(site, "hand", cluster.client("sbatch", "--parsable", f"--output={log}", str(script)))
        assert job.await_end("FAILED")["ExitCode"] == "2:0"
        assert "/nowhere/recipe.yaml" in job.log


def test_a_full_disk_is_an_outcome_that_says_so(built: Path, tmp_path: Path) -> None:
    """The store is full: the job gives up after its retries, and says what it lacked."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder)], check=True)
    try:
        with Cluster(tmp_path / "slurm", 1, hosts=True) as cluster:
            small = Site(cluster, Place(built / "tiny.yaml", folder), tmp_path)
            job = small.submit("run", "checkpoint.every_tokens=1024", "machine.retries=1")
            job.await_end("FAILED")
            assert "No space left on device" in job.log
            assert "given up" in json.dumps(job.named("job.verdict")[-1])
    finally:
        subprocess.run(["umount", str(folder)], check=True)
