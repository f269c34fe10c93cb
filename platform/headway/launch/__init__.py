"""SLURM: submitting runs, reading and steering their jobs, and training inside a job. Imports no torch."""
