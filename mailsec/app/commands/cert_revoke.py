"""`mailsec cert revoke`: a certificate that our own authority issued no longer holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import KeyUnavailable, UsageError
from mailsec.store.issued import REASONS

if TYPE_CHECKING:
    from mailsec.model.trust import CertificateEntry
    from mailsec.store.nssdb import NssDb

__all__ = ["revoke"]


@json_option
@click.command()
@click.argument("nickname", default="")
@click.option("--serial", default="", help="Instead of a nickname, or where several have it: the serial number (hexadecimal).")
@click.option(
    "--ca", metavar="NICKNAME", default="", help="With --serial alone: the CA that issued it  [default: the only one here with a key]"
)
@click.option(
    "--reason", type=click.Choice(REASONS), default="unspecified", help="Why; certificateHold can be taken back.  [default: unspecified]"
)
@click.option("--release", is_flag=True, help="Take it off hold.")
@database_options
@click.pass_obj
def revoke(output: Output, nickname: str, serial: str, ca: str, reason: str, release: bool, database: DatabaseChoice) -> None:
    """Revoke a certificate that our own CA issued. Then make a new list: `mailsec crl issue`.

    In an NSS database (-d nss:DIR) the CA's list is the register: the next one is made at once.
    """
    from mailsec.app.authorities import authorities_called, authority_of
    from mailsec.app.databases import entries_called, open_any
    from mailsec.store.issued import IssuedStore
    from mailsec.store.nssdb import NssDb
    from mailsec.x509.certificate import load_certificate

    if not nickname and not serial:
        raise UsageError("say which certificate: its nickname, or --serial", hint="`mailsec cert list` shows the nicknames")
    if nickname and ca:
        raise UsageError("--ca is for --serial alone", hint="a nickname says who issued it")
    if serial and set(serial.lower()) - set("0123456789abcdef"):
        raise UsageError(f"not a serial number: {serial[:60]!r}", hint="hexadecimal, as `mailsec cert show` prints it")
    at = datetime.now(UTC)
    with open_any(output, database) as opened:
        if nickname:
            found = [
                each for each in entries_called(opened, nickname) if not serial or load_certificate(each.der).serial == int(serial, 16)
            ]
            if not found:
                raise KeyUnavailable(f'no certificate "{nickname}" has the serial number {serial}', hint="`mailsec cert show` prints them")
            if len(found) > 1:
                raise UsageError(f'{len(found)} certificates are called "{nickname}"', hint="choose one with --serial")
            entry = found[0]
            number, not_after = load_certificate(entry.der).serial, load_certificate(entry.der).not_after
            authority = authority_of(opened, entry.der)
            if authority is None or authority.der == entry.der:
                raise KeyUnavailable(f'"{nickname}" was not issued by a CA of ours', hint="only its issuer can revoke it")
        else:
            authority, number, not_after = authorities_called(opened, ca)[0], int(serial, 16), None
        if isinstance(opened, NssDb):
            new = _on_the_list(opened, authority, number, None if release else reason, at)
        elif release:
            IssuedStore(opened).release(authority.der, number)
            new = True
        else:
            new = IssuedStore(opened).revoke(authority.der, number, at=at, reason=reason, not_after=not_after)
        listed = isinstance(opened, NssDb)
    what = f'"{nickname}"' if nickname else f"the certificate with the serial number {number:x}"
    if release:
        said = f"{what} is no longer on hold"
    else:
        said = f"{what} is revoked" if new else f"{what} was revoked before"
    output.result(
        {"nickname": nickname or None, "serial": f"{number:x}", "issuer": authority.nickname, "revoked": not release, "changed": new},
        f"{said}; its CA's list says so." if listed else f'{said}.\nNext: mailsec crl issue --ca "{authority.nickname}"',
    )


def _on_the_list(database: NssDb, authority: CertificateEntry, serial: int, reason: str | None, at: datetime) -> bool:
    """Put it on the next list of its CA, or take it off (no reason); False where it stood there before."""
    from mailsec.app.nss_authorities import reissue
    from mailsec.store.nss_register import ListedRegister

    def change(register: ListedRegister) -> ListedRegister:
        return register.release(serial) if reason is None else register.revoke(serial, at=at, reason=reason)

    return reissue(database, authority, at=at, change=change) is not None
