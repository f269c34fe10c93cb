"""Reports on runs: status, overview, summary, time accounting and curves. All of it is derived from runs."""
