"""Which code this is."""

import os
import subprocess
from pathlib import Path

import headway
from headway.registry.version_manifest import Code

PACKAGE = Path(headway.__file__).parent


def this_code() -> Code:
    """The version of Headway, and its commit: what `HEADWAY_COMMIT` says, else that of the checkout it runs from."""
    return Code(headway=headway.__version__, commit=os.environ.get("HEADWAY_COMMIT") or _commit())


def _commit() -> str | None:
    """The commit of the checkout that this package is tracked in; None where it was installed."""
    try:
        tracked = _git("ls-files", "--error-unmatch", "__init__.py")
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if tracked else None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", str(PACKAGE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
