"""The kit for a machine with a GPU and no network: locked by hash, complete, and there to be fetched."""

import hashlib
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from bench import gpu_kit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

LOCK = """\
plain==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
parted==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:cc
parted==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
windows[all]==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""
THERE = {
    *("torch", "numpy", "transformers", "safetensors", "tokenizers", "xxhash", "pyarrow", "pyyaml"),
    *("matplotlib", "prometheus-client", "psutil", "rich", "typer", "urllib3"),
}
"""What such a machine has."""
TRAIN = """
import builtins, importlib, pkgutil, sys
imported, real = set(), builtins.__import__
def note(name, context=None, *rest):
    if (context or {}).get("__name__", "").partition(".")[0] == "headway":
        imported.add(name.partition(".")[0])
    return real(name, context, *rest)
builtins.__import__ = note
for package in ("headway.train", "headway.checkpoint", "headway.data", "headway.model"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
import headway.cli.commands
from headway.telemetry import open_log
open_log()
print(*imported)
"""
"""Imports whatever trains, and prints what Headway itself imports by that."""


def test_an_entry_of_the_lock_is_taken_where_its_marker_holds() -> None:
    """Of two versions the one for Python 3.12 on Linux, with all its hashes and without the marker."""
    assert gpu_kit.pinned(LOCK, ("plain", "parted")) == [
        "plain==1.0 --hash=sha256:aa --hash=sha256:bb",
        "parted==2.0 --hash=sha256:dd",
    ]
    with pytest.raises(gpu_kit.KitError, match="no version of windows, absent for"):
        gpu_kit.pinned(LOCK, ("plain", "windows", "absent"))


def test_what_trains_imports_only_what_is_there_or_in_the_kit() -> None:
    """Every library that Headway imports to train, save and read data is on such a machine, or in the kit."""
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True, cwd=gpu_kit.ROOT)
    owners = packages_distributions()
    needed = {canonicalize_name(owner) for name in done.stdout.split() for owner in owners.get(name, ())}
    assert {"torch", "pydantic", "structlog", "zstandard"} <= needed
    assert needed - THERE - {"headway", *gpu_kit.NAMES} == set()


def test_what_the_kit_needs_is_in_the_kit() -> None:
    """A wheel of the kit asks for nothing on Python 3.12 under Linux that the kit does not have."""
    requirements = {
        canonicalize_name(requirement.name)
        for name in gpu_kit.NAMES
        for requirement in map(Requirement, requires(name) or ())
        if not requirement.marker or requirement.marker.evaluate({**gpu_kit.TARGET, "extra": ""})
    }
    assert requirements - set(gpu_kit.NAMES) == set()


def test_the_kit_is_gathered(tmp_path: Path) -> None:
    """The package index has a wheel of every name for that machine, with the locked hash; an older kit gives way."""
    (tmp_path / "old-1.0-py3-none-any.whl").touch()
    wheels = gpu_kit.gather(tmp_path, gpu_kit.pip_python())
    parts = [parse_wheel_filename(wheel.name) for wheel in wheels]
    assert sorted(name for name, *_ in parts) == sorted(gpu_kit.NAMES)
    assert all(tag.platform == "any" or "x86_64" in tag.platform for *_, tags in parts for tag in tags)
    sums = (tmp_path / gpu_kit.SUMS).read_text(encoding="utf-8").splitlines()
    lock = gpu_kit.LOCK.read_text(encoding="utf-8")
    for line, wheel in zip(sums, wheels, strict=True):
        assert line == f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}"
        assert f"--hash=sha256:{line.partition(' ')[0]}" in lock


def test_a_kit_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may be carried is an error that says how much, and leaves no sums."""
    monkeypatch.setattr(gpu_kit, "download", lambda _, folder, __: (folder / "big.whl").write_bytes(bytes(1_100_000)))
    with pytest.raises(gpu_kit.KitError, match=r"takes 1\.1 MB, more than 1 MB"):
        gpu_kit.gather(tmp_path, gpu_kit.pip_python(), max_bytes=1_000_000)
    assert not (tmp_path / gpu_kit.SUMS).exists()
