"""A PostgreSQL server of the tests' own: a new cluster in a temporary directory, on a Unix socket only. The distribution's is left alone."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

__all__ = ["Postgres", "start_postgres"]

_NOBODY = "postgres"
"""Who runs the server where the tests run as root: it refuses to."""


class Postgres:
    """A running server. `url(name)` is a database's URL for SQLAlchemy."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # A Unix socket's path may have 107 octets: pytest's directories are too deep.
        self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:
            shutil.chown(self.directory, _NOBODY)

    def start(self) -> Postgres:
        data = str(self.directory / "data")
        self._run("initdb", "-D", data, "-U", "mailsec", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        # Nothing here outlives the tests: no fsync. (What is durable is PostgreSQL's promise, not ours.)
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={self.directory} -c fsync=off -c max_connections=60 -c shared_buffers=16MB"
        )
        self._run("pg_ctl", "-D", data, "-o", options, "-l", str(self.directory / "log"), "-w", "-t", "60", "start")
        return self

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.directory / "data"), "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self) -> None:
        self._run("pg_ctl", "-D", str(self.directory / "data"), "-m", "fast", "-w", "-l", str(self.directory / "log"), "restart")

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://mailsec@/{name}?host={quote(str(self.directory), safe='')}"

    def new(self, template: str = "template0") -> str:
        """The URL of a new database."""
        name = f"test{next(self._numbers)}"
        self.sql(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(host=str(self.directory), user="mailsec", dbname=database, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", _NOBODY, "--", *command]
        # Into a file: what pg_ctl starts would keep a pipe open.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, cwd="/", timeout=120)
            said.seek(0)
            if check and done.returncode:
                raise RuntimeError(f"{program}: {said.read().decode(errors='replace')}")


def start_postgres() -> Postgres:
    """A new server; the test is skipped where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found and (initdb := shutil.which("initdb")):
        found = [Path(initdb).resolve().parent]
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    pytest.importorskip("psycopg")
    server = Postgres(found[-1])
    try:
        return server.start()
    except BaseException:
        server.stop()
        raise
