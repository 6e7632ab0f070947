"""Builds the sdist and the wheel of the repository, and installs the wheel into an environment of its own."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("electramed_jax", "configs", "launch", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def build(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Builds an sdist from a copy of the repository, and a wheel from the sdist alone, as pip does.

    Returns:
      the paths of sdist and wheel.
    """
    copy = folder / "copy"
    for name in SOURCES:
        source, target = REPOSITORY / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    sdist = _call_backend("build_sdist", copy, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, _call_backend("build_wheel", unpacked, folder)


# Packages of extras. They are left out, so that the environment is that of an install without extras.
EXTRAS = ("apache_beam", "datasets", "fastapi", "matplotlib", "onnx", "plotly", "tensorflow", "torch", "transformers")


def install(wheel: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Creates a virtual environment with a wheel. Its dependencies are those of the running environment.

    Returns:
      the site-packages of the environment.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site_packages,) = (folder / "lib").glob("python*/site-packages")
    arguments = ["--no-deps", "--no-compile", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", f"--python={folder}", "install", "--quiet", *arguments, str(wheel)]
    subprocess.run(pip, check=True)
    for path in pathlib.Path(sysconfig.get_path("purelib")).iterdir():
        left_out = path.suffix == ".pth" or "electramed_jax" in path.name or path.name.split("-")[0] in EXTRAS
        if not left_out and not (site_packages / path.name).exists():
            (site_packages / path.name).symlink_to(path)
    return site_packages


def _call_backend(hook: str, source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Returns the file that a hook of setuptools' build backend writes."""
    code = f"from setuptools import build_meta; print(build_meta.{hook}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]
