"""Training: ranks that take batches, step and save, and the launcher that starts them. The loop is in `loop`."""
