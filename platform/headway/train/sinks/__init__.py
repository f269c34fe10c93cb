"""Sinks of training events: the log, the progress bar, the heartbeat, metrics and spans."""
