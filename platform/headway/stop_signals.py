"""The signals by which people, shells, SLURM and Kubernetes ask a process to stop in order."""

import signal


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT (Ctrl-C), and SIGHUP (the end of a terminal or of ssh) unless it is ignored, as by `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hangup]
