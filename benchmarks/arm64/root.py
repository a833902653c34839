"""How does the root of another Debian system come to be in a folder, without touching this machine's own?

By mmdebstrap, from the package sources that this machine uses itself. Needs no emulation for a foreign architecture: packages
are unpacked, their scripts do not run.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


class CannotRunError(Exception):
    """This machine lacks or refuses something; the text says what, and what to do."""


def require_programs(*programs: str, packages: str) -> None:
    """Raises CannotRunError naming what is absent."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise CannotRunError(f"missing here: {', '.join(missing)}; install them: apt-get install {packages}")


def make_root(root: Path, *, arch: str, variant: str, packages: Sequence[str]) -> None:
    """variant: mmdebstrap's; "extract" unpacks only, "minbase" configures too. Raises CannotRunError."""
    command = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--architectures={arch}", f"--include={','.join(packages)}"]
    own = next((path.read_text(encoding="utf-8") for path in SOURCES if path.is_file() and SUITE in path.read_text()), None)
    done = subprocess.run(
        [*command, SUITE, str(root), *(["-"] if own else [])], input=own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotRunError(f"mmdebstrap made no {arch} root: {' / '.join(done.stderr.strip().splitlines()[-3:])}")
