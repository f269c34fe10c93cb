"""Loaded once by the process that ranks are forked from, so that the ranks of a launch share one import of torch.

It also remembers a signal that comes before a rank has begun, for the rank to find.
"""

import gc
import os
import signal
import time

LOADING = time.time()
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else whoever asks for a GPU here spoils it for the ranks
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # less memory is lost to what is between
gc.disable()  # while code is loaded there is no garbage, and looking for it takes a tenth of the time

import torch._dynamo  # noqa: E402, F401 - torch loads it at the first optimizer step otherwise

import headway.train.worker  # noqa: E402, F401 - imported to be there
from headway.train.preemption import SIGNALS, remember_early  # noqa: E402

gc.enable()
gc.freeze()  # what is loaded stays: neither the ranks nor their collections need to look at it again
LOADED = time.time()

for number in SIGNALS:
    signal.signal(number, remember_early)
