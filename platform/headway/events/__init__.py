"""Events: everything that the log of a run, a job or a service can show, and what the sinks of an attempt handle.

Each is a frozen dataclass with the name that the log shows. Emitters build them, sinks and readers `match` them, so the
type checker knows every name and every field. The page `docs/events.md` is generated from here (`make docs`).
"""
