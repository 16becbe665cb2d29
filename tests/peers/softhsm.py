"""SoftHSM2 in a directory of its own, and a module in front of it that fails on demand (pkcs11_shim.c)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["LIBRARY", "SO_PIN", "Shim", "SoftHsm"]

LIBRARY = next((str(path) for path in Path("/usr/lib").glob("**/libsofthsm2.so")), "")
SO_PIN = "12345678"
_HERE = Path(__file__).parent


class SoftHsm:
    """Tokens below `directory`; `environment` is what a process needs that uses them."""

    library = LIBRARY

    def __init__(self, directory: Path) -> None:
        if not LIBRARY or shutil.which("softhsm2-util") is None:
            pytest.skip("SoftHSM2 is absent: apt-get install softhsm2")
        (directory / "tokens").mkdir(parents=True)
        self.configuration = directory / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(self.configuration)}
        self.state = directory / "state"

    def add(self, label: str, pin: str) -> None:
        """A new token."""
        self._run("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", pin)

    def tool(self, *arguments: str, library: str = LIBRARY) -> str:
        """OpenSC's pkcs11-tool."""
        if shutil.which("pkcs11-tool") is None:
            pytest.skip("pkcs11-tool is absent: apt-get install opensc")
        return self._run("pkcs11-tool", "--module", library, *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


class Shim:
    """The module in front: what `say` writes is what its functions then do."""

    def __init__(self, directory: Path, of: str = LIBRARY) -> None:
        """`of` is the module that it stands in front of."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler: apt-get install gcc")
        directory.mkdir(parents=True, exist_ok=True)
        self.library = str(directory / "shim.so")
        self.control = directory / "control"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", self.library, str(_HERE / "pkcs11_shim.c"), "-ldl"], check=True, timeout=60
        )
        self.environment = {"SHIM_LIBRARY": of, "SHIM_CONTROL": str(self.control)}

    def say(self, *lines: str) -> None:
        """ "C_Sign 0x32", "C_Login crash", "* hang" … for each call from now on; nothing: it works."""
        beside = self.control.with_suffix(".new")
        beside.write_text("".join(line + "\n" for line in lines))
        beside.replace(self.control)

    def calls(self, name: str) -> int:
        """How often a function was called while something was said of it (C_Login: always); `say(name + " -")` says nothing, and counts."""
        log = Path(f"{self.control}.calls")
        return log.read_text().splitlines().count(name) if log.exists() else 0
