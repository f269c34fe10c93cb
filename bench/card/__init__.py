"""What `bench/gpu.py` measures, a part a module; `device` is all that differs between a GPU and a rehearsal."""
