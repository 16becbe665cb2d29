"""From a configuration file to a running supervisor: everything is checked and opened first, then ports, then workers."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mailsec.app.config import Configuration, gateway_settings
from mailsec.app.config.server_certificates import doubts
from mailsec.app.files import reason_of
from mailsec.app.hardening import harden_process
from mailsec.app.logs import configure_logs, watch_twisted
from mailsec.app.modules import Assignments, modules_in_use
from mailsec.app.opening import open_configuration
from mailsec.app.output import Output
from mailsec.app.passphrase import typed_pins
from mailsec.app.ports import open_ports
from mailsec.errors import ConfigurationError, MailsecError
from mailsec.store.certdb import CertDb

__all__ = ["run_gateway"]

_log = structlog.get_logger("mailsec.tls")


def run_gateway(path: str, output: Output) -> int:
    """Run until stopped; the exit code. Raise ConfigurationErrors before anything was bound or started."""
    harden_process()
    configuration, database = open_configuration(path)
    data_key = database.data_key
    doubtful = doubts(configuration, database, datetime.now(UTC))
    modules = modules_in_use(configuration.modules, database)
    database.close()
    pins = typed_pins(configuration, modules)
    lock = _make_directories(configuration)
    sockets, problems = open_ports([listener.address for listener in gateway_settings(configuration).listeners])
    if problems:
        raise configuration.errors(problems)
    configure_logs(configuration.log.format, configuration.log.level, configuration.log.file)
    watch_twisted()
    for doubt in dict.fromkeys((one.message, one.hint) for one in doubtful):
        _log.warning("server certificate in doubt", error=doubt[0], hint=doubt[1])

    from twisted.internet import reactor

    from mailsec.app.supervisor import Supervisor, Timing
    from mailsec.net.reactor import steady

    steady(reactor)

    hosts = None
    if modules:
        from mailsec.app.token_hosts import HostTiming, Pins, TokenHosts

        assignments = Assignments(CertDb.open(configuration.database.location, data_key=data_key))
        hosts = TokenHosts(reactor, configuration, modules, Pins(configuration.passphrase, pins), assignments, timing=HostTiming())
    supervisor = Supervisor(
        reactor,
        path=path,
        configuration=configuration.text,
        data_key=data_key,
        sockets=sockets,
        workers=configuration.gateway.workers or len(os.sched_getaffinity(0)),
        timing=Timing(drain=configuration.gateway.drain_timeout),
        hosts=hosts,
    )
    try:
        return supervisor.run()
    finally:
        os.close(lock)


def _make_directories(configuration: Configuration) -> int:
    """Make spool and run directory, and hold the lock of the run directory: two supervisors on one spool would fight."""
    run = Path(configuration.gateway.run_directory)
    try:
        for directory in (run, Path(configuration.spool.directory)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(run / "mailsec.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise MailsecError(f"cannot write in {error.filename}: {reason_of(error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise ConfigurationError(
            f"mailsec is running already (process {holder or 'unknown'})", hint=f"it holds {run / 'mailsec.pid'}"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
