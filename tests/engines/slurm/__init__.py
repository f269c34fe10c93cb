"""A real SLURM cluster on one machine."""
