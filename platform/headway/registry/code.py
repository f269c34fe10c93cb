"""The version and commit of the running code."""

import os
import subprocess
from pathlib import Path

import headway
from headway.registry.version_manifest import Code

PACKAGE = Path(headway.__file__).parent


def this_code() -> Code:
    """The version of Headway and its commit: `HEADWAY_COMMIT`, else the commit of the checkout it runs from."""
    return Code(headway=headway.__version__, commit=os.environ.get("HEADWAY_COMMIT") or _commit())


def _commit() -> str | None:
    """The commit of the checkout that contains this package; None for an installed package."""
    try:
        tracked = _git("ls-files", "--error-unmatch", "__init__.py")
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if tracked else None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
