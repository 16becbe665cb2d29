"""Opening what a configuration names, as `check` and `serve` do: pass phrase, database, surroundings, plugins; all mistakes at once."""

from __future__ import annotations

from datetime import UTC, datetime

from mailsec.app.config import Configuration
from mailsec.app.config.load import read_configuration
from mailsec.app.config.problems import ConfigurationErrors, Problem, located
from mailsec.app.config.surroundings import find_surrounding_problems
from mailsec.app.options import ask_passphrase
from mailsec.app.passphrase import passphrase_source
from mailsec.app.wiring import find_plugin_problems
from mailsec.errors import MailsecError, WrongPassphrase
from mailsec.store.certdb import CertDb

__all__ = ["open_configuration"]

_TRIES = 3
"""mod_nss's `builtin` dialog asks as often."""


def open_configuration(path: str, *, consequence: str = "nothing was started") -> tuple[Configuration, CertDb]:
    """The configuration and its open database; raise ConfigurationErrors with everything that is wrong in it and around it."""
    configuration, problems, lines = read_configuration(path)
    if configuration is None:
        raise ConfigurationErrors(located(path, lines, problems), consequence)
    database = None
    try:
        database = _open_database(configuration)
    except WrongPassphrase as error:
        place = "file" if configuration.passphrase.method == "file" else "method"
        problems.append(Problem(("passphrase", place), error.message, error.hint))
    except MailsecError as error:
        place = "location" if error.stage != "passphrase" else ""
        problems.append(Problem(("database", place) if place else ("passphrase",), error.message, error.hint))
    problems += find_surrounding_problems(configuration, database, datetime.now(UTC))
    problems += find_plugin_problems(configuration)
    if problems:
        if database is not None:
            database.close()
        raise ConfigurationErrors(located(path, lines, list(dict.fromkeys(problems))), consequence)
    assert database is not None
    return configuration, database


def _open_database(configuration: Configuration) -> CertDb:
    location = configuration.database.location
    found = passphrase_source(configuration.passphrase)
    if found is not None:
        return CertDb.open(location, password=found.encode())
    database = CertDb.open(location)
    if database.unlocked:
        return database
    database.close()
    for attempt in range(_TRIES):
        try:
            return CertDb.open(location, password=ask_passphrase("Pass phrase of the database").encode())
        except WrongPassphrase:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError
