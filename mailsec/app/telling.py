"""A verdict as people read it: layer by layer from the outside in, who signed, the four answers, and what to do about each no.

The one invariant: every reason of the verdict is told, once, beside the answer that it explains or below all of them.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from mailsec.app.output import Output
from mailsec.model.verdict import CertificateSummary, LayerReport, Reason, Revocation, SignerReport, SmimeWord, Verdict

__all__ = ["headline", "tell_verdict"]

_SENTENCES = {
    SmimeWord.PASS: "trusted",
    SmimeWord.FAIL: "NOT TRUSTED: what was signed is not what is here",
    SmimeWord.POLICY: "NOT TRUSTED: it is intact, but not to be believed",
    SmimeWord.NEUTRAL: "NOT TRUSTED: its S/MIME cannot be read or checked",
    SmimeWord.TEMPERROR: "NOT TRUSTED YET: what would prove it is out of reach",
    SmimeWord.PERMERROR: "NOT TRUSTED: it is over a limit",
    SmimeWord.NONE: "not signed",
}

_STAGES = {"integrity": "intact", "path": "chains", "revocation": "not revoked", "identity": "matches From"}
"""Which of the four answers (promise 4) a reason of this stage explains."""

_LABEL = 16


def headline(verdict: Verdict) -> str:
    """The whole verdict in one line."""
    return f"{_SENTENCES[verdict.word]} (smime={verdict.word.value})"


def tell_verdict(output: Output, verdict: Verdict, name: str = "", indent: str = "") -> None:
    """Print the verdict on the message called `name`."""
    teller = _Teller(output, indent)
    teller.line(f"{name}: {headline(verdict)}" if name else headline(verdict))
    for number, layer in enumerate(verdict.layers, 1):
        teller.layer(layer, f"{number} " if len(verdict.layers) > 1 else "")
    if verdict.protected_headers:
        teller.line()
        teller.field("header", f"its signer wrote: {', '.join(verdict.protected_headers)}")
    left = [reason for reason in verdict.reasons if reason not in teller.told]
    if left:
        teller.line()
    for reason in left:
        teller.reason(reason, "  ")


class _Teller:
    def __init__(self, output: Output, indent: str) -> None:
        self.output = output
        self.indent = indent
        self.told: set[Reason] = set()
        self.width = shutil.get_terminal_size().columns if output.terminal else 0

    def line(self, text: str = "", hang: int = 2) -> None:
        """One paragraph, wrapped where people sit at a terminal."""
        text = f"{self.indent}{text}" if text else ""
        if not self.width or len(text) <= self.width:
            self.output.text(text)
            return
        blanks = len(text) - len(text.lstrip())
        wrapped = textwrap.wrap(
            text.lstrip(),
            max(self.width, 40),
            initial_indent=" " * blanks,
            subsequent_indent=" " * (blanks + hang),
            break_on_hyphens=False,
        )
        for one in wrapped:
            self.output.text(one)

    def field(self, label: str, text: str) -> None:
        if text:
            self.line(f"  {label:<{_LABEL}}{text}", hang=_LABEL)

    def answer(self, yes: bool | None, label: str, text: str, reasons: Iterable[Reason] = ()) -> None:
        """One of the four answers: yes, no, or not asked; reasons take the place of `text`."""
        reasons = [reason for reason in reasons if reason not in self.told]
        mark = self.output.mark(yes)
        self.field(f"{mark} {label}", text if not reasons else _why(reasons[0]))
        for number, reason in enumerate(reasons):
            self.told.add(reason)
            if number:
                self.field("", _why(reason))
            if reason.hint:
                self.field("", f"→ {reason.hint}" if self.output.unicode else f"-> {reason.hint}")

    def reason(self, reason: Reason, indent: str) -> None:
        self.told.add(reason)
        self.line(f"{indent}{self.output.mark(False)} {_why(reason)}", hang=4)
        if reason.hint:
            self.line(f"{indent}  {'→' if self.output.unicode else '->'} {reason.hint}", hang=5)

    # -- layers ----------------------------------------------------------------------------------------------------------------

    def layer(self, layer: LayerReport, number: str) -> None:
        self.line()
        self.line(f"{number}{layer.type}" + (f", {layer.algorithm}" if layer.algorithm else ""))
        if layer.opened is not None:
            self.answer(layer.opened, "opened", "yes" if layer.opened else "no key opens it", layer.reasons)
        for index, signer in enumerate(layer.signers):
            if index:
                self.line()
            self.signer(signer)
        for reason in layer.reasons:
            if reason not in self.told:
                self.reason(reason, "  ")

    def signer(self, signer: SignerReport) -> None:
        certificate = signer.certificate
        by = self.reasons_by_answer(signer)
        if certificate is None:
            self.field("signed by", "somebody whose certificate is not here")
        else:
            self.field("signed by", _who(certificate))
            self.field("certified by", certificate.issuer)
            self.field("valid", _validity(certificate))
        if signer.signing_time is not None:
            self.field("signed at", f"{signer.signing_time:%Y-%m-%d %H:%M} UTC, as the signer says")
        with_what = " with ".join(word for word in (signer.signature, signer.digest) if word)
        self.answer(
            signer.intact, "intact", f"the content is what was signed ({with_what})" if signer.intact else "no", by.pop("intact", ())
        )
        path = (
            " → ".join(one.subject for one in signer.chain[1:]) if self.output.unicode else " -> ".join(s.subject for s in signer.chain[1:])
        )
        chains = f"to {path or 'an anchor'}" if signer.chains else "not asked" if signer.chains is None else "no"
        self.answer(signer.chains, "chains", chains, by.pop("chains", ()))
        good = {Revocation.GOOD: True, Revocation.REVOKED: False, Revocation.UNKNOWN: False}.get(signer.revocation)
        said = {Revocation.GOOD: "the authority says so", Revocation.NOT_CHECKED: "not checked"}.get(
            signer.revocation, signer.revocation.value
        )
        self.answer(good, "not revoked", said, by.pop("not revoked", ()))
        matches = "its certificate names the From address" if signer.matches_from else "not asked" if signer.matches_from is None else "no"
        self.answer(signer.matches_from, "matches From", matches, by.pop("matches From", ()))
        for reasons in by.values():
            for reason in reasons:
                if reason not in self.told:
                    self.reason(reason, "  ")

    def reasons_by_answer(self, signer: SignerReport) -> dict[str, list[Reason]]:
        found: dict[str, list[Reason]] = {}
        for reason in signer.reasons:
            found.setdefault(_STAGES.get(reason.stage, ""), []).append(reason)
        return found


def _why(reason: Reason) -> str:
    return f"{reason.message}  [{', '.join(word for word in (reason.code, reason.rfc) if word)}]"


def _who(certificate: CertificateSummary) -> str:
    addresses: Sequence[str] = certificate.addresses
    return f"{', '.join(addresses)} ({certificate.subject})" if addresses else certificate.subject


def _validity(certificate: CertificateSummary) -> str:
    if certificate.not_before is None or certificate.not_after is None:
        return ""
    return f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}, serial number {certificate.serial}"
