"""Gather the wheels that a machine with a GPU and without a network lacks to train with Headway.

    make gpu-kit      # or, with a Python that has pip: python -m bench.gpu_kit [--to out/gpu-kit] [--python python3]

Such a machine has Python 3.12, torch, triton, transformers, numpy and what comes with them; `NAMES` are the rest.
Versions and hashes are those of requirements.lock, wheels are for CPython 3.12 on Linux x86-64. There, from the root of
the repository and with the folder carried along:

    (cd out/gpu-kit && sha256sum --check --quiet SHA256SUMS)
    python3 -m pip install --no-index --no-deps --target /tmp/site out/gpu-kit/*.whl
    PYTHONPATH=platform:/tmp/site python3 -m headway.cli train recipe.yaml

Nothing that the machine has is replaced: /tmp/site is only found where PYTHONPATH names it. Left out is what a run in a
folder never imports: S3, and spans.
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
"""What `headway train`, data and checkpoints import beyond what comes with torch and transformers.

Recipes and the journal are pydantic's, which wants typing-extensions as new as the lock's; logs are structlog's; the
store asks again by tenacity and pybreaker; zstandard reads compressed text.
"""
ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
FOLDER = Path("out/gpu-kit")
SUMS = "SHA256SUMS"
LARGEST = 60_000_000
"""The kit may take so much, all wheels together [bytes]: what can be carried in one go, with room for the code."""
TARGET = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_full_version": "3.12.3",
    "python_version": "3.12",
    "sys_platform": "linux",
}
"""The machine, in the words of a marker."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
ENTRY = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*\])?==(?P<version>[^\s;]+)(?: ; (?P<marker>.+?))? (?P<hashes>--hash=.+)"
)


class KitError(Exception):
    """The kit cannot be made; says why."""


def pip_python() -> Path:
    """A Python that has pip, which uv leaves out of .venv: uv's own environment, else what .venv was made from."""
    own = ROOT / ".uv/bin/python"
    return own if own.exists() else Path(sys.base_prefix) / "bin/python3"


def pinned(lock: str, names: tuple[str, ...] = NAMES) -> list[str]:
    """The requirement of each name, with hashes, by the entry of `lock` that holds on `TARGET`.

    Its marker is left out: pip would judge it by the machine that it runs on.
    """
    found = {}
    for line in lock.replace("\\\n", " ").splitlines():
        entry = ENTRY.fullmatch(" ".join(line.split()))
        if entry and (not entry["marker"] or Marker(entry["marker"]).evaluate(TARGET)):
            found[canonicalize_name(entry["name"])] = f"{entry['name']}=={entry['version']} {entry['hashes']}"
    missing = [name for name in names if name not in found]
    if missing:
        raise KitError(f"requirements.lock has no version of {', '.join(missing)} for Python 3.12 on Linux")
    return [found[canonicalize_name(name)] for name in names]


def download(requirements: list[str], folder: Path, python: Path) -> None:
    """Fetch a wheel for each requirement into `folder`, by the pip of `python`, which checks the hashes."""
    with tempfile.TemporaryDirectory() as name:
        wanted = Path(name) / "requirements.txt"
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--implementation", "cp", "--python-version", "3.12"]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        done = subprocess.run([*command, "--dest", str(folder), "--requirement", str(wanted)], check=False)
    if done.returncode:
        raise KitError(f"pip could not fetch the wheels; if {python} has no pip, name a Python that has: --python")


def gather(folder: Path, python: Path, largest: int = LARGEST) -> list[Path]:
    """Fill `folder` with the wheels of the kit and their sums, in place of an older kit; returns the wheels."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.whl"), folder / SUMS]:
        old.unlink(missing_ok=True)
    download(pinned(LOCK.read_text(encoding="utf-8")), folder, python)
    wheels = sorted(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    if size > largest:
        raise KitError(
            f"the kit takes {size / 1e6:.1f} MB, more than {largest / 1e6:.0f} MB: which name can be left out?"
        )
    sums = [f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n" for wheel in wheels]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")
    return wheels


def main() -> None:
    """Gather the kit, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=FOLDER, help="the folder of the kit")
    parser.add_argument("--python", type=Path, default=pip_python(), help="a Python that has pip")
    wanted = parser.parse_args()
    try:
        wheels = gather(wanted.to, wanted.python)
    except KitError as error:
        sys.exit(f"gpu-kit: {error}")
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:6.2f} MB  {wheel.name}")
    print(f"{sum(wheel.stat().st_size for wheel in wheels) / 1e6:6.2f} MB  {wanted.to}")


if __name__ == "__main__":
    main()
