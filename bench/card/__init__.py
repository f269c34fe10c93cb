"""The parts of `bench/gpu.py`, one per module. Only `device` differs between a GPU and a rehearsal on a CPU."""
