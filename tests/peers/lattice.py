"""A PKCS#11 3.2 module with ML-DSA and ML-KEM keys over SoftHSM2 (pkcs11_lattice.c): no Debian module has them yet."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.softhsm import LIBRARY

__all__ = ["Lattice"]

_HERE = Path(__file__).parent


class Lattice:
    """The module; its tokens are those of SoftHSM2. `environment` is what a process needs that uses it."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler: apt-get install gcc")
        directory.mkdir(parents=True, exist_ok=True)
        self.library = str(directory / "lattice.so")
        source = str(_HERE / "pkcs11_lattice.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self.library, source, "-ldl", "-lpthread"], check=True, timeout=60)
        self.environment = {
            "LATTICE_LIBRARY": LIBRARY,
            "LATTICE_PYTHON": sys.executable,
            "LATTICE_HELPER": str(_HERE / "lattice_arithmetic.py"),
        }
