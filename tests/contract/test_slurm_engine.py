"""The SLURM cluster that the tests start: it does what a cluster does, breaks as told, and leaves nothing behind."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.engines.slurm.cluster import Cluster
from tests.engines.slurm.hosts import available
from tests.engines.slurm.login import Login

HOSTS = pytest.param(True, marks=pytest.mark.skipif(not available(), reason="needs root: nodes of their own"))
NAMESPACES = ("net", "mnt", "uts", "pid")


@pytest.fixture(scope="module", params=[HOSTS, False], ids=["hosts", "shared"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes with two GPUs each."""
    with Cluster(tmp_path_factory.mktemp("slurm"), 2, hosts=request.param, gpus=2, kill_wait=2) as cluster:
        yield cluster


def output(cluster: Cluster, job: str) -> list[str]:
    """The sorted lines of a job's output."""
    return sorted(Path(cluster.show("job", job)["StdOut"]).read_text(encoding="utf-8").splitlines())


def processes(folder: Path) -> set[psutil.Process]:
    """Everything that belongs to the cluster in a folder: it has its slurm.conf in its environment."""
    members = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == str(folder / "slurm.conf") and is_alive(process):
                members.add(process)
        except psutil.Error:
            continue
    return members


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is there and no zombie; it may end at any moment."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def sleepers(folder: Path) -> set[psutil.Process]:
    """The processes of jobs in which `sleep 300` is run."""
    asleep = set()
    for process in processes(folder):
        with suppress(psutil.NoSuchProcess):  # it has ended since
            if process.cmdline() == ["sleep", "300"]:
                asleep.add(process)
    return asleep


def namespaces(members: set[psutil.Process]) -> set[str]:
    """The namespaces that processes are in."""
    names = set()
    for process in members:
        for kind in NAMESPACES:
            try:
                names.add(str(Path(f"/proc/{process.pid}/ns/{kind}").readlink()))
            except OSError:
                continue
    return names


def began_before(process: psutil.Process, moment: float) -> bool:
    """Whether a process is there that began before `moment` [s since 1970]."""
    with suppress(psutil.Error):
        return process.create_time() < moment
    return False


def links_with(address: str) -> set[str]:
    """The links of this machine to clusters that have an address that begins so."""
    known = {name: addresses for name, addresses in psutil.net_if_addrs().items() if name.startswith("headway")}
    return {name for name, addresses in known.items() if any(one.address.startswith(address) for one in addresses)}


def places(cluster: Cluster) -> set[tuple[str, str]]:
    """Addresses and ports of a cluster's daemons."""
    text = (cluster.folder / "slurm.conf").read_text(encoding="utf-8")
    controller = re.findall(r"SlurmctldHost=.*\((.*)\)\nSlurmctldPort=(\d+)", text)
    return {*controller, *re.findall(r"NodeAddr=(\S+) Port=(\d+)", text)}


def assert_nothing_left(folder: Path, links: set[str]) -> None:
    """No process, mount or link of the cluster in `folder` is there."""
    assert not processes(folder)
    assert str(folder) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert not links & {path.name for path in Path("/sys/class/net").iterdir()}


def test_runs_a_task_on_each_node(cluster: Cluster) -> None:
    """A job's tasks run on different nodes, each with its GPUs, and nodes that are hosts know their names."""
    job = cluster.submit(
        "srun sh -c 'echo $SLURMD_NODENAME $(hostname) $CUDA_VISIBLE_DEVICES'", "--nodes=2", "--gpus-per-node=2"
    )
    cluster.await_job(job, {"COMPLETED"})
    here = Path("/proc/sys/kernel/hostname").read_text(encoding="utf-8").strip()
    assert output(cluster, job) == [f"{node} {node if cluster.hosts else here} 0,1" for node in cluster.nodes]


def test_runs_an_array(cluster: Cluster) -> None:
    """Each element of an array is a job with an index of its own."""
    array = cluster.submit("echo $SLURM_ARRAY_TASK_ID; exit $SLURM_ARRAY_TASK_ID", "--array=0-2")
    codes = [
        cluster.await_job(f"{array}_{index}", {"COMPLETED", "FAILED"})["ExitCode"].partition(":")[0]
        for index in range(3)
    ]
    assert codes == ["0", "1", "2"]
    assert {record["ArrayTaskId"] for record in cluster.records("job", array)} == {"0", "1", "2"}


def test_a_job_of_higher_priority_preempts(cluster: Cluster) -> None:
    """A job of `high` takes the nodes of a job of `main`, which is requeued and runs again."""
    low = cluster.submit("srun sleep 300", "--nodes=2", "--exclusive", "--requeue")
    cluster.await_job(low, {"RUNNING"})
    high = cluster.submit("true", "--nodes=2", "--exclusive", "--partition=high")
    cluster.await_job(high, {"COMPLETED"})
    cluster.await_job(low, lambda job: job["Restarts"] == "1" and job["JobState"] == "RUNNING")
    cluster.client("scancel", low)


def test_a_services_address_is_reached_from_a_node(cluster: Cluster) -> None:
    """A job reaches what listens on this machine at the cluster's address."""
    with socket.create_server((cluster.address, 0)) as server:
        server.settimeout(60)
        job = cluster.submit(f"bash -c 'echo hello >/dev/tcp/{cluster.address}/{server.getsockname()[1]}'")
        visitor, _ = server.accept()
        with visitor:
            assert visitor.recv(5) == b"hello"
    cluster.await_job(job, {"COMPLETED"})


def test_what_is_refused_is_told(cluster: Cluster) -> None:
    """A client's complaint reaches whoever called it."""
    with pytest.raises(RuntimeError, match="invalid partition"):
        cluster.submit("true", "--partition=nowhere")


def test_a_failed_wait_tells_what_it_saw(cluster: Cluster) -> None:
    """A wait in vain ends with the job's record and the ends of the logs."""
    job = cluster.submit("true", "--begin=now+1hour")
    with pytest.raises(TimeoutError, match=r"JobState(.|\n)*controller.log"):
        cluster.await_job(job, {"RUNNING"}, seconds=0.0)
    cluster.client("scancel", job)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [HOSTS, False], ids=["hosts", "shared"])
def test_a_power_cut_moves_the_job(tmp_path: Path, *, hosts: bool) -> None:
    """A node without power is DOWN, its job runs again on others, and the node serves again once it is on."""
    with Cluster(tmp_path, 2, hosts=hosts, slurmd_timeout=5, kill_wait=2) as cluster:
        job = cluster.submit("srun sleep 300", "--requeue")
        lost = cluster.await_job(job, {"RUNNING"})["NodeList"]
        cluster.power_cut(lost)
        cluster.await_node(lost, "DOWN")
        again = cluster.await_job(job, lambda job: job["JobState"] == "RUNNING" and job["NodeList"] != lost)
        assert again["Restarts"] == "1"
        cluster.start_node(lost)
        cluster.await_node(lost, "IDLE")


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="needs root: nodes of their own")
def test_a_node_that_is_cut_off_runs_on(tmp_path: Path) -> None:
    """Without its network a node is DOWN while its steps live; with it, SLURM ends them."""
    with Cluster(tmp_path, 2, hosts=True, slurmd_timeout=5, kill_wait=2) as cluster:
        job = cluster.submit("exec sleep 300", "--no-requeue")
        lost = cluster.await_job(job, {"RUNNING"})["NodeList"]
        while not (steps := sleepers(tmp_path)):
            time.sleep(0.05)
        cluster.cut_network(lost)
        cluster.await_node(lost, "DOWN")
        assert all(process.is_running() for process in steps)
        cluster.join_network(lost)
        cluster.await_node(lost, "IDLE")
        _, alive = psutil.wait_procs(steps, timeout=60)
        assert not alive


@pytest.mark.parametrize("hosts", [HOSTS, False], ids=["hosts", "shared"])
def test_nothing_is_left_behind(tmp_path: Path, *, hosts: bool) -> None:
    """However its nodes were broken, a cluster that is stopped has left no process, mount, link or network."""
    with Cluster(tmp_path, 3, hosts=hosts) as cluster:
        before = namespaces({psutil.Process()})
        job = cluster.submit("srun sh -c 'setsid sleep 300 & exec sleep 300'", "--nodes=3")
        cluster.await_job(job, {"RUNNING"})
        while len(sleepers(tmp_path)) < 6:  # two on each node
            time.sleep(0.05)
        members = processes(tmp_path)
        links = links_with(cluster.address)
        assert len(links) == hosts
        theirs = namespaces(members) - before
        cluster.kill_slurmd("node1")
        assert len(sleepers(tmp_path)) == 6
        cluster.power_cut("node2")
        assert len(sleepers(tmp_path)) == 4
        if hosts:
            cluster.cut_network("node3")
            assert len(sleepers(tmp_path)) == 4
        end = time.time()
    assert not [process for process in members if is_alive(process)]
    # what began later may be another cluster's: the kernel gives the names of namespaces out again
    assert not theirs & namespaces({process for process in psutil.process_iter() if began_before(process, end)})
    assert_nothing_left(tmp_path, links)


@pytest.mark.parametrize("hosts", [HOSTS, False], ids=["hosts", "shared"])
def test_the_cluster_ends_with_its_owner(tmp_path: Path, *, hosts: bool) -> None:
    """A cluster whose owner is killed ends, too, with its jobs."""
    command = [sys.executable, "-m", "tests.engines.slurm.cluster", "--folder", str(tmp_path), "--nodes=1"]
    command += ["--hosts" if hosts else "--no-hosts"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        while not (line := owner.stdout.readline()).startswith("# nodes reach"):
            assert owner.poll() is None
        links = links_with(line.split()[-1])
        assert len(links) == hosts
        login = Login(tmp_path)
        login.await_job(login.submit("sleep 300"), {"RUNNING"})
        members = processes(tmp_path)
        owner.send_signal(signal.SIGKILL)
    psutil.wait_procs(members, timeout=60)
    while links & links_with("10."):  # the kernel removes the network some time after its last process
        time.sleep(0.05)
    assert_nothing_left(tmp_path, links)


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A daemon that ends at once fails the start with its log, and everything else is stopped."""
    with pytest.raises(RuntimeError, match=r"did not start(.|\n)*KillWait"), Cluster(tmp_path, 1, kill_wait=-1):
        pass
    assert_nothing_left(tmp_path, set())
    with Cluster(tmp_path, 1):
        pass


def test_a_folder_holds_one_cluster(tmp_path: Path) -> None:
    """A second cluster in the same folder is refused, and does not disturb the first."""
    with Cluster(tmp_path, 1) as first:
        with pytest.raises(RuntimeError, match=r"runs in .* already"), Cluster(tmp_path, 1):
            pass
        first.await_job(first.submit("true"), {"COMPLETED"})


@pytest.mark.parametrize("hosts", [HOSTS, False], ids=["hosts", "shared"])
def test_clusters_side_by_side_do_not_meet(tmp_path: Path, *, hosts: bool) -> None:
    """What is a node's place in one cluster is in no other, even while the node is off."""
    with Cluster(tmp_path / "one", 1, hosts=hosts) as one:
        one.power_cut("node1")
        with Cluster(tmp_path / "two", 1, hosts=hosts) as two:
            assert not places(one) & places(two)
            two.await_job(two.submit("true"), {"COMPLETED"})
