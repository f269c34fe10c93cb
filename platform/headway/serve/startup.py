"""How far a replica has got with its start, and how long each stage took: told to the service through a file."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Startup:
    """The stages of a start, as the replica reaches them."""

    path: Path
    """A file of JSON lines, which the service reads."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage, so far."""
    _last: float = field(default_factory=time.time)

    def done(self, stage: str) -> None:
        """Note that `stage` ends now."""
        now = time.time()
        self.seconds[stage] = round(now - self._last, 3)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "seconds": self.seconds[stage]}) + "\n")
        self._last = now


def stages(path: Path) -> dict[str, float]:
    """Seconds by stage, as far as the replica has got."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines if line.endswith("}")]
    return {each["stage"]: each["seconds"] for each in told}
