"""Builds the nodes' program of the last commit in two folders, and fails where the bytes differ."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Prints the digests of both builds."""
    with tempfile.TemporaryDirectory() as folder:
        builds = [built(Path(folder, name)) for name in ("a", "another-folder/below")]
    for digests in builds:
        print("\n".join(f"{digest}  {name}" for name, digest in digests.items()))
    if builds[0] != builds[1]:
        sys.exit("the two builds are not the same bytes")


def built(folder: Path) -> dict[str, str]:
    """Builds the program in a folder of its own as functions/node-program does; returns the digests by processor."""
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    (folder / ".tools").symlink_to((ROOT / ".tools").resolve())
    function, out = folder / "functions/node-program", folder / "out"
    out.mkdir()
    subprocess.run(["rustc", "--edition=2024", "-o", folder / "builder", function / "build.rs"], check=True)
    told = {"CARGO_MANIFEST_DIR": str(function), "OUT_DIR": str(out), "PROFILE": "release"}
    programs = {name.upper(): shutil.which(name) for name in ("cargo", "rustc")}
    subprocess.run([folder / "builder"], env={**os.environ, **told, **programs}, stdout=subprocess.DEVNULL, check=True)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.iterdir())}


if __name__ == "__main__":
    main()
