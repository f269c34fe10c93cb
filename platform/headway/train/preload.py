"""Loaded once by the process that ranks are forked from, so that the ranks of a launch share one import of torch.

It also remembers a signal that comes before a rank has begun, for the rank to find.
"""

import signal

import torch._dynamo  # noqa: F401 - torch loads it at the first optimizer step otherwise

import headway.train.worker  # noqa: F401 - imported to be there
from headway.train.preemption import SIGNALS, remember_early

for number in SIGNALS:
    signal.signal(number, remember_early)
