"""Output of `scontrol -o show` of SLURM 22.05.8, shortened at the ends."""

PLAIN = (
    "JobId=5934 JobName=a b JobState=X UserId=z(1) GroupId=q UserId=root(0) GroupId=root(0) MCS_label=N/A "
    "Priority=4294901759 Nice=0 Account=(null) QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 "
    "Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:01 TimeLimit=365-00:00:00 TimeMin=N/A "
    "SubmitTime=2026-11-21T16:05:36 EligibleTime=2026-11-21T16:05:36 AccrueTime=2026-11-21T16:05:36 "
    "StartTime=2026-11-21T16:05:37 EndTime=2027-11-21T16:05:37 Deadline=N/A PreemptEligibleTime=2026-11-21T16:05:37 "
    "PreemptTime=None SuspendTime=None SecsPreSuspend=0 LastSchedEval=2026-11-21T16:05:37 Scheduler=Backfill "
    "Partition=main AllocNode:Sid=vm:18309 ReqNodeList=(null) ExcNodeList=(null) NodeList=node[1-2] BatchHost=node1 "
    "NumNodes=2 NumCPUs=2 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=1,node=1,billing=1 WorkDir=/my folder "
)
WAITING = (
    "JobId=5935 ArrayJobId=5935 ArrayTaskId=2-6,8,10-998:494%4 ArrayTaskThrottle=4 JobName=wrap UserId=root(0) "
    "GroupId=root(0) MCS_label=N/A Priority=4294901758 Nice=0 Account=(null) QOS=(null) JobState=PENDING "
    "Reason=JobArrayTaskLimit Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "RunTime=00:00:00 TimeLimit=UNLIMITED TimeMin=N/A SubmitTime=2026-11-21T16:05:36 AccrueTime=Unknown "
    "StartTime=Unknown EndTime=Unknown Deadline=N/A SuspendTime=None Partition=main NodeList= NumNodes=1 NumCPUs=8 "
)
ELEMENT = (
    "JobId=5942 ArrayJobId=5935 ArrayTaskId=7 ArrayTaskThrottle=4 JobName=wrap UserId=root(0) GroupId=root(0) "
    "MCS_label=N/A Priority=4294901758 Nice=0 Account=(null) QOS=(null) JobState=CANCELLED Reason=None "
    "Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=1:15 RunTime=00:00:00 "
    "SubmitTime=2026-11-21T16:05:36 StartTime=2026-11-21T16:05:37 EndTime=2026-11-21T16:05:38 "
    "PreemptTime=2026-11-21T16:05:38 Partition=main NodeList=(null) NumNodes=1 "
)
NODE = (
    "NodeName=node1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=8 CPUTot=8 CPULoad=2.39 AvailableFeatures=(null) "
    "ActiveFeatures=(null) Gres=gpu:fake:2 NodeAddr=127.0.0.1 NodeHostName=vm Port=22956 Version=22.05.8 "
    "OS=Linux 6.18.44 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=8000 AllocMem=0 FreeMem=20988 Sockets=8 State=IDLE "
    "ThreadsPerCore=1 Partitions=main,grace,high  BootTime=2026-11-21T12:19:58 CfgTRES=cpu=8,mem=8000M,billing=8 "
)
PARTITION = (
    "PartitionName=grace AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=12 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED "
    "MinNodes=0 Nodes=node[1-3] PriorityTier=1 PreemptMode=REQUEUE State=UP TotalCPUs=24 TotalNodes=3 "
)
