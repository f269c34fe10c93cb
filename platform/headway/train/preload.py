"""Imports for the forkserver, so that the ranks of a launch share one import of torch.

It also records a signal that comes before a rank has started, for the rank to find.
"""

import gc
import os
import time

from headway.output_stream import protect_work

IMPORT_START = time.time()
protect_work()  # before torch, whose loggers keep the streams that they find
# Without this, a check for GPUs would initialize CUDA here, and CUDA does not survive a fork.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # reduces fragmentation
gc.disable()  # imports make no garbage, and looking for it takes a tenth of the time

import torch._dynamo  # noqa: E402, F401 - torch loads it at the first optimizer step otherwise

import headway.train.worker  # noqa: E402, F401 - the ranks need it
from headway.stop_signals import unblock_signals  # noqa: E402
from headway.train.host.preemption import handle_stop_signals, record_early_signal  # noqa: E402

gc.enable()
gc.freeze()  # the imported modules stay, so collections in the ranks can skip them
IMPORT_END = time.time()

handle_stop_signals(record_early_signal)
unblock_signals()
