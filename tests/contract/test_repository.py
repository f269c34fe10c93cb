"""What this repository promises about itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform/headway"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_platform_folder_is_no_package() -> None:
    """`platform` is a folder of sources: as a package it would hide the standard library's module."""
    assert not (ROOT / "platform/__init__.py").exists()


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "manager", "base"])
def test_no_module_has_a_name_that_says_nothing(name: str) -> None:
    """No module or package anywhere is called so."""
    assert not [
        path for folder in ("platform", "tests", "jobs", "bench") for path in (ROOT / folder).rglob(f"{name}.py")
    ]
    assert not [path for folder in ("platform", "tests", "jobs", "bench") for path in (ROOT / folder).rglob(name)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    """No module has more than 300 lines, and the training loop has fewer than 150."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300
    if path == PACKAGE / "train/loop.py":
        assert lines < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """A link in a page to a file of the repository names one that exists."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if link and not (page.parent / link).exists()] == []


def test_what_the_security_page_says_has_its_tests() -> None:
    """Each line about who can do what names at least one, and all that it names exist."""
    lines = (ROOT / "docs/security.md").read_text(encoding="utf-8").partition("## Who can do what")[2].splitlines()
    rows = [line for line in lines if line.startswith("| ") and line != "| | test |"]
    assert len(rows) > 10
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        assert [name for name in names if f"def {name}(" not in sources] == [], row


def test_every_requirement_is_locked_by_hash_and_names_no_host() -> None:
    """Each requirement has an exact version and a SHA-256, and nothing says where it is to be fetched from."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "-url" not in text
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"]
    assert len(requirements) > 50
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[^\s;]+", requirement), requirement
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", requirement), requirement


HOST = [f"headway.train.host.{path.stem}" for path in sorted((PACKAGE / "train/host").glob("[a-z]*.py"))]


@pytest.mark.parametrize(
    "modules",
    [
        *("headway.cli", "headway.cli.commands", "headway.recipe", "headway.runs", "headway.reports.overview"),
        *("headway.launch.array_members", "headway.launch.submission", "headway.launch.resolve", "headway.registry"),
        pytest.param(", ".join(HOST), id="headway.train.host"),
    ],
)
def test_a_login_node_and_a_launcher_need_no_torch(modules: str) -> None:
    """The command line, recipes, the store, what submits and what starts ranks are imported without torch."""
    script = f"import sys, {modules}; print([m for m in ('torch', 'transformers', 'safetensors') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_ci_runs_what_the_readme_says() -> None:
    """The command that CI runs is one that the README tells people to run."""
    commands = re.findall(r"^exec (.+)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert commands
    assert all(command in readme for command in commands)
