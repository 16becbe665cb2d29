"""Opening what a configuration names, as `check` and `serve` do: pass phrase, database, surroundings, plugins; all mistakes at once."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from mailsec.app.config import Configuration
from mailsec.app.config.load import read_configuration
from mailsec.app.config.problems import ConfigurationErrors, DatabaseIsAway, Problem, located
from mailsec.app.config.server_certificates import find_certificate_problems
from mailsec.app.config.surroundings import find_surrounding_problems
from mailsec.app.options import ask_passphrase
from mailsec.app.passphrase import passphrase_source
from mailsec.app.rehearsal import find_rehearsal_problems
from mailsec.app.wiring import find_plugin_problems
from mailsec.errors import ConfigurationError, MailsecError, WrongPassphrase
from mailsec.store.certdb import CertDb
from mailsec.store.connection import DatabaseAway

__all__ = ["open_configuration"]

_TRIES = 3
"""mod_nss's `builtin` dialog asks as often."""


def open_configuration(
    path: str, *, consequence: str = "nothing was started", text: str | None = None, known: tuple[str, bytes] | None = None
) -> tuple[Configuration, CertDb]:
    """The configuration and its open database; raise ConfigurationErrors with everything that is wrong in it and around it.

    `text` is what was read from `path` already; `known` a database's location with its data key, for which no pass phrase is asked.
    """
    try:
        configuration, problems, lines = read_configuration(path, text)
    except ConfigurationErrors as error:  # not even TOML
        raise ConfigurationErrors(error.problems, consequence) from error
    if configuration is None:
        raise ConfigurationErrors(located(path, lines, problems), consequence)
    database = None
    kind = ConfigurationErrors
    try:
        database = _open_database(configuration, known)
    except MailsecError as error:
        if isinstance(error, DatabaseAway):
            kind = DatabaseIsAway
        place = ("database", "location")
        if isinstance(error, WrongPassphrase) or error.stage == "passphrase":
            place = ("passphrase", "file" if configuration.passphrase.method == "file" else "method")
        problems.append(Problem(place, error.message, error.hint))
    at = datetime.now(UTC)
    around = find_surrounding_problems(configuration, database, at)
    if database is not None:
        try:
            around += find_certificate_problems(configuration, database, at)
        except MailsecError as error:
            around.append(Problem(("database", "location"), error.message, error.hint))
    if any(problem.path == ("passphrase", "file") for problem in around):  # the same file, said once
        problems = [problem for problem in problems if problem.path != ("passphrase", "file")]
    problems += around
    of_plugins = find_plugin_problems(configuration)
    problems += of_plugins
    if database is not None and not of_plugins:
        problems += find_rehearsal_problems(configuration, database)
    if problems:
        if database is not None:
            database.close()
        found = list(dict.fromkeys(problems))
        raise (kind if len(found) == 1 else ConfigurationErrors)(located(path, lines, found), consequence)
    assert database is not None
    return configuration, database


def _open_database(configuration: Configuration, known: tuple[str, bytes] | None) -> CertDb:
    location = configuration.database.location
    if known is not None and known[0] == location:
        return CertDb.open(location, data_key=known[1])
    found = passphrase_source(configuration.passphrase)
    if found is not None:
        return CertDb.open(location, password=found.encode())
    database = CertDb.open(location)
    if database.unlocked:
        return database
    database.close()
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "the pass phrase of the database is asked for on a terminal, and there is none",
            hint='set method = "file" or method = "systemd" in [passphrase]',
            stage="passphrase",
        )
    for attempt in range(_TRIES):
        try:
            return CertDb.open(location, password=ask_passphrase("Pass phrase of the database").encode())
        except WrongPassphrase:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError
