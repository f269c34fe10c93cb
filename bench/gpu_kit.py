"""Collects the wheels that an offline GPU machine lacks to train with Headway.

    make gpu-kit      # or, with a Python that has pip: python -m bench.gpu_kit [--to out/gpu-kit] [--python python3]

Such a machine has Python 3.12, torch, triton, transformers, numpy and their dependencies; `NAMES` are the rest.
Versions and hashes come from requirements.lock; wheels are for CPython 3.12 on Linux x86-64. On that machine, from the
root of the copied repository:

    (cd out/gpu-kit && sha256sum --check --quiet SHA256SUMS)
    python3 -m pip install --no-index --no-deps --target /tmp/site out/gpu-kit/*.whl
    PYTHONPATH=platform:/tmp/site python3 -m headway.cli train recipe.yaml

The machine's packages are not replaced: Python finds /tmp/site only through PYTHONPATH. The kit leaves out S3 and
spans, which a run in a folder store never imports.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

NAMES = (
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions"),
    "structlog",
    *("tenacity", "pybreaker"),
    "zstandard",
)
"""Imports of training, data and checkpoints that do not come with torch and transformers.

Recipes and the journal need pydantic, which needs the lock's typing-extensions; logs need structlog; the store's
retries need tenacity and pybreaker; compressed text needs zstandard.
"""
ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
FOLDER = Path("out/gpu-kit")
SUMS = "SHA256SUMS"
MAX_BYTES = 60_000_000
"""Maximum size of the kit [bytes], so that kit and code can be copied together."""
TARGET = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_full_version": "3.12.3",
    "python_version": "3.12",
    "sys_platform": "linux",
}
"""Environment of the machine, for requirement markers."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
ENTRY = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*\])?==(?P<version>[^\s;]+)(?: ; (?P<marker>.+?))? (?P<hashes>--hash=.+)"
)


class KitError(Exception):
    """The kit cannot be made; the message says why."""


def pip_python() -> Path:
    """A Python with pip, which .venv lacks: that of uv's environment, else the base of .venv."""
    own = ROOT / ".uv/bin/python"
    return own if own.exists() else Path(sys.base_prefix) / "bin/python3"


def pinned(lock: str, names: tuple[str, ...] = NAMES) -> list[str]:
    """The requirement of each name, with hashes, from the entry of `lock` whose marker holds on `TARGET`.

    The result has no marker, because pip would evaluate it for this machine.
    """
    requirements = {}
    for line in lock.replace("\\\n", " ").splitlines():
        entry = ENTRY.fullmatch(" ".join(line.split()))
        if entry and (not entry["marker"] or Marker(entry["marker"]).evaluate(TARGET)):
            requirements[canonicalize_name(entry["name"])] = f"{entry['name']}=={entry['version']} {entry['hashes']}"
    missing = [name for name in names if name not in requirements]
    if missing:
        raise KitError(f"requirements.lock has no version of {', '.join(missing)} for Python 3.12 on Linux")
    return [requirements[canonicalize_name(name)] for name in names]


def download(requirements: list[str], folder: Path, python: Path) -> None:
    """Download a wheel for each requirement to `folder` with the pip of `python`, which checks the hashes."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "requirements.txt"
        file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--implementation", "cp", "--python-version", "3.12"]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        done = subprocess.run([*command, "--dest", str(folder), "--requirement", str(file)], check=False)
    if done.returncode:
        raise KitError(f"pip could not download the wheels; if {python} has no pip, name one that has with --python")


def gather(folder: Path, python: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Replace the contents of `folder` by the wheels of the kit and their checksums; returns the wheels."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.whl"), folder / SUMS]:
        old.unlink(missing_ok=True)
    download(pinned(LOCK.read_text(encoding="utf-8")), folder, python)
    wheels = sorted(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    if size > max_bytes:
        raise KitError(
            f"the kit takes {size / 1e6:.1f} MB, more than {max_bytes / 1e6:.0f} MB; remove a name from NAMES"
        )
    sums = [f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n" for wheel in wheels]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")
    return wheels


def main() -> None:
    """Collect the kit, and print its contents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder of the kit")
    parser.add_argument("--python", type=Path, default=pip_python(), help="Python with pip")
    options = parser.parse_args()
    try:
        wheels = gather(options.to, options.python)
    except KitError as error:
        sys.exit(f"gpu-kit: {error}")
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:6.2f} MB  {wheel.name}")
    print(f"{sum(wheel.stat().st_size for wheel in wheels) / 1e6:6.2f} MB  {options.to}")


if __name__ == "__main__":
    main()
