"""From a configuration file to a running supervisor: everything is checked and opened first, then ports, then workers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mailsec.app import shared_counts
from mailsec.app.config import Configuration, gateway_settings
from mailsec.app.config.models import Module
from mailsec.app.config.server_certificates import doubts
from mailsec.app.files import reason_of
from mailsec.app.hardening import harden_process
from mailsec.app.logs import configure_logs, watch_twisted
from mailsec.app.modules import Assignments, modules_in_use
from mailsec.app.opening import open_configuration
from mailsec.app.output import Output
from mailsec.app.passphrase import typed_pins
from mailsec.app.ports import Ports
from mailsec.app.pseudonyms import log_key
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
    ports = Ports()
    sockets, problems = ports.open([listener.address for listener in gateway_settings(configuration).listeners])
    if problems:
        raise configuration.errors(problems)
    # Not lasting: a reload may say something else about the log.
    configure_logs(configuration.log, data_key=data_key, lasting=False)
    watch_twisted()
    for doubt in dict.fromkeys((one.message, one.hint) for one in doubtful):
        _log.warning("server certificate in doubt", error=doubt[0], hint=doubt[1])

    from twisted.internet import reactor

    from mailsec.app.control_socket import ControlSocket
    from mailsec.app.generation import Orders
    from mailsec.app.metrics.merged import Merged
    from mailsec.app.metrics.port import MetricsPort
    from mailsec.app.operations import Operations
    from mailsec.app.pins import Pins
    from mailsec.app.reloading import Reloading, timing_of, worker_count
    from mailsec.app.supervisor import Supervisor
    from mailsec.app.token_hosts import TokenHosts
    from mailsec.net.reactor import steady

    steady(reactor)

    def make_hosts(configuration: Configuration, modules: Sequence[Module], data_key: bytes) -> TokenHosts:
        assignments = Assignments(CertDb.open(configuration.database.location, data_key=data_key))
        known = Pins(configuration.passphrase, pins)
        return TokenHosts(reactor, configuration, modules, known, assignments, log_key=log_key(data_key))

    supervisor = Supervisor(
        reactor,
        orders=Orders(path, configuration.text, data_key, worker_count(configuration), sockets),
        spool_directory=configuration.spool.directory,
        timing=timing_of(configuration),
        hosts=make_hosts(configuration, modules, data_key) if modules else None,
    )
    run = configuration.gateway.run_directory
    reloading = Reloading(supervisor, ports, configuration, modules, make_hosts)
    operations = Operations(reloading)
    control = ControlSocket(reactor, run, operations.answer)
    merged = Merged(operations.measured)
    metrics = MetricsPort(reactor, merged.text, operations.health)
    supervisor.on_hangup = reloading.hangup
    supervisor.on_told = lambda worker, message: merged.update(worker, message.get("measures"))
    supervisor.on_ended += [merged.departed, lambda worker: shared_counts.forget(run, worker.spool)]
    supervisor.on_begin += [control.start, lambda: metrics.listen(configuration.metrics.listen)]
    supervisor.on_stop += [ports.close, control.stop, metrics.close]
    reloading.on_changed.append(lambda changed: metrics.listen(changed.metrics.listen))
    try:
        code = supervisor.run()
    finally:
        os.close(lock)
    if supervisor.refusal is not None:
        output.error(supervisor.refusal.message, supervisor.refusal.hint)
    return code


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
    shared_counts.begin(run)
    return descriptor
