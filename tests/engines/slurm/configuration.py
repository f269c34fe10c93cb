"""What a throw-away cluster is told: its slurm.conf and gres.conf."""

import getpass
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "kmsg")
"""What stands for GPUs: SLURM wants character devices, and every container has these. Nobody opens them."""


@dataclass(frozen=True)
class Daemon:
    """Where a daemon is reached."""

    host: str
    """Name of the machine it runs on, as that machine says it."""
    address: str
    port: int


@dataclass(frozen=True)
class Layout:
    """What a cluster consists of."""

    controller: Daemon
    nodes: Mapping[str, Daemon]
    folder: Path
    spool: Path
    """Where slurmd puts its sockets: a short path, since a socket's is limited to 107 bytes."""
    plugins: Path | None
    """Folder of SLURM's plugins; None: where they are installed."""
    cpus: int
    gpus: int
    kill_wait: int
    slurmd_timeout: int

    def write(self) -> Path:
        """Write the files and return the path of slurm.conf."""
        if self.gpus:
            files = ",".join(f"/dev/{device}" for device in DEVICES[: self.gpus])
            (self.folder / "gres.conf").write_text(f"Name=gpu Type=fake File={files}\n", encoding="utf-8")
        path = self.folder / "slurm.conf"
        path.write_text("\n".join([*self._cluster(), *self._machines(), *self._partitions(), ""]), encoding="utf-8")
        return path

    def _cluster(self) -> Sequence[str]:
        user = getpass.getuser()
        local = self.controller.address.startswith("127.")
        return [
            "ClusterName=headway",
            f"SlurmctldHost={self.controller.host}({self.controller.address})",
            f"SlurmctldPort={self.controller.port}",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            # Without authentication whoever reaches a daemon is believed, so only this machine may reach them.
            "AuthType=auth/none",
            "CredType=cred/none",
            # A requeued job waits for as long as a credential lives. Less than 5 s would mean 120 s.
            "AuthInfo=cred_expire=5",
            *(["CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"] if local else []),
            *([f"PluginDir={self.plugins}"] if self.plugins else []),
            f"StateSaveLocation={self.folder / 'state'}",
            f"SlurmdSpoolDir={self.spool}/%n",
            f"SlurmctldPidFile={self.spool}/controller.pid",
            f"SlurmdPidFile={self.spool}/%n.pid",
            f"SlurmctldLogFile={self.folder}/log/controller.log",
            f"SlurmdLogFile={self.folder}/log/%n.log",
            "LogTimeFormat=iso8601_ms",
            "SlurmctldDebug=verbose",
            "SlurmdDebug=verbose",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "MpiDefault=none",
            "MailProg=/bin/true",
            "ReturnToService=2",
            # Nodes have the CPUs that they are said to have, whatever this machine has.
            "SlurmdParameters=config_overrides",
            f"SlurmdTimeout={self.slurmd_timeout}",
            f"KillWait={self.kill_wait}",
            "MinJobAge=3600",
            # Ids of an earlier cluster must not come again: files and runs are named by them.
            f"FirstJobId={1000 + secrets.randbelow(20000)}",
        ]

    def _machines(self) -> Sequence[str]:
        gres = f" Gres=gpu:fake:{self.gpus}" if self.gpus else ""
        lines = ["GresTypes=gpu"] if self.gpus else []
        for name, daemon in self.nodes.items():
            where = f"NodeHostname={daemon.host} NodeAddr={daemon.address} Port={daemon.port}"
            lines.append(f"NodeName={name} {where} CPUs={self.cpus} RealMemory=8000{gres} State=UNKNOWN")
        return lines

    def _partitions(self) -> Sequence[str]:
        return [
            "PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=0",
            "PartitionName=grace Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=12",
            "PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF",
        ]
