"""`mailsec cert find`: which certificates mail to an address is encrypted for, and why not the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.model.address import Address

if TYPE_CHECKING:
    from mailsec.gateway.correspondents import Asked, Correspondent, Judged

__all__ = ["find"]


@json_option
@click.command()
@click.argument("address")
@click.option("--explain", is_flag=True, help="Also which directories were asked, and why each other certificate is not used.")
@click.option("--local", is_flag=True, help="With a configuration: ask no directory on the network.")
@database_options
@click.pass_obj
def find(output: Output, address: str, explain: bool, local: bool, database: DatabaseChoice) -> int:
    """Say which certificates mail to ADDRESS would be encrypted for, as the gateway does.

    With a configuration all its directories are asked, those of plugins too, and about revocation whoever can say; with -d only
    the database and the lists in it. The exit code is 1 where there is none, 75 where a directory could not be asked that may know one.
    """
    parsed = Address.parse(address)
    known = _of_database(output, parsed, database) if database.database else _of_gateway(parsed, database, local)
    value = {
        "address": str(parsed),
        "found": bool(known.chosen),
        "certificates": [_value(one) for one in known.chosen],
        "others": [_value(one) for one in known.others],
        "reason": _reason(known.missing) if not known.chosen else None,
        "directories": [{"name": one.directory, "found": one.found, "failed": one.failed, "why": one.why or None} for one in known.asked],
    }

    def say() -> None:
        if explain:
            output.table(["directory", "what it gave"], [(one.directory, _given(one)) for one in known.asked], title="asked, in this order")
            output.text("")
        output.table(["certificate", "of", "until", "key", "from"], [_row(one) for one in known.chosen], title="used" if explain else "")
        if known.chosen and database.database:
            output.text("Only the lists of this database said whether it was revoked; a configuration (-c) has others asked.")
        if explain and known.others:
            if known.chosen:
                output.text("")
            output.table(["not used", "of", "from", "because"], [_against(one) for one in known.others])
        if not known.chosen:
            why = known.missing.message if known.missing else "no directory knows one"
            output.text(f"there is no certificate to encrypt to {parsed} with: {why}")
            if not explain and (known.others or len(known.asked) > 1):
                count = f"{len(known.others)} cannot be used: " if known.others else ""
                output.text(f"{count}--explain says why")

    output.result(value, say)
    return 0 if known.chosen else 75 if any(one.failed for one in known.asked) else 1


def _of_database(output: Output, address: Address, choice: DatabaseChoice) -> Correspondent:
    """Judged with the anchors of the database, and with the revocation lists that lie in it; nobody else is asked."""
    from mailsec.app.command_runtime import CommandRuntime
    from mailsec.app.database_plugin import DatabasePlugin
    from mailsec.app.databases import open_any
    from mailsec.app.kept_evidence import KeptLists, ListsOnly
    from mailsec.app.nss_correspondents import NssCorrespondents
    from mailsec.app.truststore import ConfiguredTrust
    from mailsec.gateway.correspondents import Correspondents
    from mailsec.gateway.directories import Directories
    from mailsec.gateway.engine import SmimeEngine
    from mailsec.interfaces import CertificateDirectory, run_now
    from mailsec.keys.software import SoftwareBackend
    from mailsec.store.nssdb import NssDb

    with open_any(output, choice, writing=False) as opened:
        runtime = CommandRuntime()
        plugin = NssCorrespondents(opened) if isinstance(opened, NssDb) else DatabasePlugin(opened, runtime)
        lists = KeptLists(opened, runtime.now())
        desk = ListsOnly(SmimeEngine(SoftwareBackend(), runtime), runtime, ConfiguredTrust(plugin, (), ()), lists)
        asked: list[CertificateDirectory] = (
            [plugin] if isinstance(plugin, NssCorrespondents) else [*plugin.register_certificate_directories()]
        )
        directories = Directories(asked, runtime)
        return run_now(Correspondents(directories, desk, runtime).find(address))


def _of_gateway(address: Address, choice: DatabaseChoice, local: bool) -> Correspondent:
    """As `mailsec serve` with this configuration would."""
    from mailsec.app.assembly import make_pipeline
    from mailsec.app.command_runtime import CommandRuntime, NoSpool
    from mailsec.app.config import gateway_settings
    from mailsec.app.online import run_online
    from mailsec.app.opening import open_configuration
    from mailsec.interfaces import Runtime, run_now

    loaded, database = open_configuration(choice.configuration_path(), consequence="nothing was asked")

    async def ask(runtime: Runtime) -> Correspondent:
        _, pipeline = make_pipeline(loaded, gateway_settings(loaded), database, runtime, NoSpool())
        return await pipeline.correspondent(address, everywhere=not local)

    with database:
        return run_now(ask(CommandRuntime())) if local else run_online(ask, gateway_settings(loaded).revocation)


def _value(one: Judged) -> dict[str, Any]:
    from mailsec.app.path_inputs import certificate_value
    from mailsec.x509.certificate import load_certificate

    return {
        "certificate": certificate_value(load_certificate(one.found.der)),
        "source": one.found.source,
        "origin": one.found.origin or None,
        "domain": one.found.domain or None,
        "profiles": sorted(one.profiles),
        "reason": _reason(one.reason),
    }


def _reason(reason: Any) -> dict[str, str] | None:
    from mailsec.app.path_inputs import reason_value

    return None if reason is None else reason_value(reason)


def _row(one: Judged) -> list[object]:
    from mailsec.x509.certificate import load_certificate

    certificate = load_certificate(one.found.der)
    key = f"{certificate.key_type} {certificate.bits}" if certificate.key_type.startswith("rsa") else certificate.key_type
    until = f"{certificate.not_after:%Y-%m-%d}" if certificate.not_after else ""
    return [one.fingerprint[:16], certificate.subject.text, until, key, _source(one)]


def _source(one: Judged) -> str:
    found = one.found
    return found.source + (f" ({found.origin})" if found.origin else "") + (f", for all of @{found.domain}" if found.domain else "")


def _given(one: Asked) -> str:
    if one.found is None:
        return one.why
    return plural(one.found, "certificate") if one.found else "nothing"


def _against(one: Judged) -> list[object]:
    from mailsec.x509.certificate import load_certificate

    certificate = load_certificate(one.found.der)
    reason = one.reason
    why = "another one is better" if reason is None else f"{reason.message} ({reason.hint})" if reason.hint else reason.message
    return [one.fingerprint[:16], certificate.subject.text, _source(one), why]
