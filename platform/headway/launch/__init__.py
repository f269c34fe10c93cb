"""SLURM: what is asked of it, what it answers, and what happens inside an allocation. Imports no torch."""
