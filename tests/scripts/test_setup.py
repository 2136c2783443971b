"""scripts/setup knows when there is nothing to do, and says what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path: Path) -> ModuleType:
    """scripts/setup.py, looking at a checkout in which everything seems installed."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = tmp_path
    module.VENV = tmp_path / ".venv"
    module.STAMP = module.VENV / "narwhal-setup.json"
    module.PYTHON = module.VENV / "bin" / "python"
    module.PYTHON.parent.mkdir(parents=True)
    module.PYTHON.touch()
    (tmp_path / "pyproject.toml").write_text("[project]")
    for folder in module.NODE_FOLDERS["test"]:
        (tmp_path / folder / "node_modules").mkdir(parents=True)
        (tmp_path / folder / "package-lock.json").write_text("{}")
    return module


def installed(setup: ModuleType, purpose: str) -> None:
    setup.STAMP.write_text(json.dumps({purpose: setup.fingerprint(purpose)}))


def test_a_second_run_has_nothing_to_do(setup: ModuleType) -> None:
    assert not setup.is_ready("demo")
    installed(setup, "demo")
    assert setup.is_ready("demo")
    assert setup.main("demo") == 0


def test_what_the_tests_need_covers_the_demo_and_not_the_other_way_round(
    setup: ModuleType,
) -> None:
    installed(setup, "demo")
    assert not setup.is_ready("test")
    installed(setup, "test")
    assert setup.is_ready("demo")


@pytest.mark.parametrize("name", ["pyproject.toml", "narwhal/local/node/package-lock.json"])
def test_a_changed_dependency_is_installed(setup: ModuleType, name: str) -> None:
    installed(setup, "demo")
    (setup.ROOT / name).write_text("changed")
    assert not setup.is_ready("demo")


def test_removed_packages_are_installed_again(setup: ModuleType) -> None:
    installed(setup, "demo")
    (setup.ROOT / "narwhal/local/node/node_modules").rmdir()
    assert not setup.is_ready("demo")


def test_a_missing_python_is_named_in_two_lines(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        found = next(p for p in os.environ["PATH"].split(":") if (Path(p) / tool).exists())
        (tmp_path / tool).symlink_to(Path(found) / tool)
    done = subprocess.run(
        [ROOT / "scripts" / "setup"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "Python 3.11" in done.stderr
