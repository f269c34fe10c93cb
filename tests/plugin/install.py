"""Installs the package as pip would: a folder with its metadata, on the path of this process and of those it starts."""

import os
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def install(folder: Path, patch: pytest.MonkeyPatch, name: str = "") -> None:
    """Install the package in `folder` until `patch` is undone, under its own name or another."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = name or project["name"]
    metadata = folder / f"{name.replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {project['version']}\n")
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{kind} = {value}\n" for kind, value in points.items())
            for group, points in project["entry-points"].items()
        )
    )
    patch.syspath_prepend(str(folder))
    patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}", prepend=os.pathsep)
