"""Writer to standard error, from a thread of its own: whoever reads it may stop reading."""

import sys
import threading
from contextlib import suppress

CAPACITY_CHARACTERS = 2**20
"""How far standard error may be behind [characters]."""
CLOSE_SECONDS = 1.0
"""How long `close` waits for the thread [s]."""


class StderrWriter:
    """Writes text to standard error without ever waiting for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._texts: list[str] = []
        """Texts that are not written yet."""
        self._characters = 0
        """Characters of the texts that are not written yet."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
        self._thread.start()

    def write(self, text: str) -> bool:
        """Write `text` soon, or drop it if too much text waits; returns whether it will be written."""
        with self._changed:
            if self._characters and self._characters + len(text) > CAPACITY_CHARACTERS:
                return False
            self._texts.append(text)
            self._characters += len(text)
            self._changed.notify()
        return True

    def close(self) -> None:
        """Write the rest and stop; gives up after `CLOSE_SECONDS` if standard error is blocked."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        text = ""
        while True:
            with self._changed:
                self._characters -= len(text)
                self._changed.wait_for(lambda: self._texts or self._closing)
                text = "".join(self._texts)
                self._texts.clear()
            if not text:
                return
            with suppress(OSError):  # whoever read it has gone
                sys.stderr.write(text)
                sys.stderr.flush()
