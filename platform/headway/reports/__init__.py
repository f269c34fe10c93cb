"""Reports on runs: status, overview, summary, time accounting and loss curves. All of it is derived from runs."""
