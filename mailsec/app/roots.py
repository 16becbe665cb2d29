"""Anchors for e-mail out of the box: Mozilla's roots, or those of a file. None is trusted unless somebody says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import click

from mailsec.app.certificate_stream import CertificateFile
from mailsec.app.files import naming, read_file
from mailsec.app.nicknames import nickname_for
from mailsec.app.output import Output, plural
from mailsec.errors import UsageError
from mailsec.keys.certdata import Root, is_certdata, read_certdata
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.entry_rows import demand_domains
from mailsec.store.facts import facts_of
from mailsec.store.intake import Incoming, take_in
from mailsec.store.roots import install_roots

__all__ = ["NONE", "Anchors", "add_anchors", "ask_for_anchors", "mozilla_roots", "read_anchors", "said"]

NONE, MOZILLA = "none", "mozilla"


def mozilla_roots() -> Sequence[Root]:
    """The roots that NSS's module has on this machine; raise UsageError where it is not installed."""
    from mailsec.tokens.roots import read_mozilla_roots

    return read_mozilla_roots()


@dataclass(frozen=True, slots=True)
class Anchors:
    """Whom somebody wants to trust for e-mail: roots of Mozilla's list, or certificates of a file for some domains."""

    roots: Sequence[Root] = ()
    own: Sequence[Incoming] = ()


def read_anchors(where: str, domains: Sequence[str]) -> Anchors:
    """What `where` says: "mozilla", a certdata.txt, or a file of certificates, which is for `domains` only. Nothing is changed yet."""
    if where == NONE:
        return Anchors()
    if where == MOZILLA:
        roots = mozilla_roots()
    else:
        data = read_file(where)
        if not is_certdata(data):
            trust = TrustFlags.parse(",C,")
            named = demand_domains(trust, domains)
            ders = list(CertificateFile(where))
            for der in ders:
                facts_of(der)
            return Anchors(own=[Incoming(der, suggested=nickname_for(der), trust=trust, domains=named) for der in ders])
        with naming(where):
            roots = read_certdata(data)
    if domains:
        raise UsageError("Mozilla's roots vouch for every domain: --for is for anchors of your own", hint="leave --for out")
    return Anchors(roots)


def add_anchors(database: CertDb, anchors: Anchors, *, at: datetime) -> dict[str, int]:
    """Trust them; return how many of each there were."""
    if anchors.own:
        taken = list(take_in(database, anchors.own, at=at))
        counts = {"anchors": len(taken), "distrusted": 0, "added": sum(one.new for one in taken), "changed": 0, "withdrawn": 0, "kept": 0}
        for one in taken:
            if one.problem is not None:
                raise one.problem
        return counts
    return asdict(install_roots(database, anchors.roots, at=at)) if anchors.roots else {"anchors": 0}


def said(counts: dict[str, int]) -> str:
    """What `add_anchors` did, in words."""
    text = f"{plural(counts['anchors'], 'anchor')} for e-mail"
    if counts["distrusted"]:
        text += f", {counts['distrusted']} distrusted"
    more = [f"{counts[name]} {name}" for name in ("added", "changed", "withdrawn") if counts[name]]
    if counts["kept"]:
        more.append(f"{counts['kept']} as a person decided")
    return text + (f" ({', '.join(more)})" if more else "")


def ask_for_anchors(output: Output) -> str:
    """On a terminal: whether Mozilla's roots are to be trusted; elsewhere nobody's are."""
    if output.json or not sys.stdin.isatty() or not output.err.isatty():
        return NONE
    try:
        roots = mozilla_roots()
    except UsageError:
        return NONE
    number = sum(root.email == "C" for root in roots)
    question = f"Trust the {number} authorities that Mozilla trusts for e-mail? (`mailsec cert import --anchors mozilla` does it later)"
    return MOZILLA if click.confirm(question, default=False, err=True) else NONE
