"""Real training processes, killed and damaged."""
