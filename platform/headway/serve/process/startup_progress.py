"""Progress of a replica's start: the replica appends each stage to a file, and the service reads it."""

import json
from pathlib import Path

from headway.telemetry.stage_timer import StageTimer


class StartupProgress:
    """Measures the stages of a replica's start and reports each as it ends."""

    def __init__(self, path: Path) -> None:
        """`path`: a file of JSON lines, one for each stage."""
        self.path = path
        self.seconds: dict[str, float] = {}
        """Duration of each stage so far."""
        self._timer = StageTimer()

    def done(self, stage: str) -> None:
        """End `stage` now, and append it to the file."""
        self._timer.done(stage)
        self.seconds[stage] = round(self._timer.seconds[stage], 3)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "seconds": self.seconds[stage]}) + "\n")


def read_progress(path: Path) -> dict[str, float]:
    """Read the seconds of each stage that has ended so far."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return {entry["stage"]: entry["seconds"] for entry in entries}
