"""An NSS directory with NSS's own tools, and mailsec's view of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from mailsec.store.nssdb import NssDb
from mailsec.tokens.module import Module
from mailsec.tokens.softoken import NssDatabase, find_softoken, nss_parameters
from mailsec.tokens.state import StateDirectory

__all__ = ["LABEL", "PASSWORD", "NssDirectory"]

PASSWORD = b"one two"
LABEL = "NSS Certificate DB"


class NssDirectory:
    """cert9.db and key4.db in a directory of their own."""

    def __init__(self, path: Path, template: Path | None = None) -> None:
        """Make it with certutil, or as a copy of `template`, which costs less."""
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.password_file = path / "password"
        self.noise = path / "noise"
        self.noise.write_bytes(os.urandom(64))
        self.password_file.write_bytes(PASSWORD + b"\n")
        if template is None:
            self.run("certutil", "-N")
        else:
            for name in ("cert9.db", "key4.db", "pkcs11.txt"):
                shutil.copy(template / name, path / name)

    def run(self, tool: str, *arguments: str, check: bool = True, stdin: str = "") -> str:
        """What certutil, crlutil or signver say; `-d` and `-f` are added."""
        return self._run(tool, *arguments, "-d", f"sql:{self.path}", "-f", str(self.password_file), check=check, stdin=stdin)

    def pk12util(self, *arguments: str) -> str:
        """What pk12util says; its password option is another one."""
        return self._run("pk12util", *arguments, "-d", f"sql:{self.path}", "-k", str(self.password_file))

    def modutil(self, *arguments: str) -> str:
        """What modutil says."""
        return self._run("modutil", "-force", "-dbdir", f"sql:{self.path}", *arguments)

    def _run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=stdin)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def trust(self) -> dict[str, str]:
        """Letters by nickname, as certutil lists them."""
        rows = [line.rstrip().rsplit(maxsplit=1) for line in self.run("certutil", "-L").splitlines()]
        return {row[0].strip(): row[1] for row in rows if len(row) == 2 and row[1].count(",") == 2 and "/" not in row[1]}

    def open(self, state: Path, *, read_only: bool = False, login: bool = True, password: bytes = PASSWORD) -> NssDb:
        """mailsec's view of it, logged in. A process holds one at a time: softoken is initialised once."""
        parameters = nss_parameters([NssDatabase(str(self.path), read_only=read_only)])
        module = Module("nss", find_softoken(), state=StateDirectory(state), parameters=parameters)
        try:
            if login:
                module.token("").login(password, person=True)
        except BaseException:
            module.close()
            raise
        return NssDb(module, LABEL, f"nss:{self.path}", password=password, close=module.close)
