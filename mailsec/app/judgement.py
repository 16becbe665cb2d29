"""What `smime verify`, `decrypt` and `inspect` have in common: a message from a file taken apart, and judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mailsec.app.messages import Given, at_once, new_scratch
from mailsec.app.opening_keys import OpeningKeys
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import Octets
from mailsec.model.verdict import SmimeResult, Verdict
from mailsec.smime.assess import assess
from mailsec.smime.report import verdict_json
from mailsec.smime.unprotect import unprotect_message

if TYPE_CHECKING:
    from mailsec.app.output import Output
    from mailsec.app.path_inputs import PathInputs
    from mailsec.interfaces import EvidenceRequest
    from mailsec.pki.evidence import RevocationEvidence
    from mailsec.pki.path import PathOptions
    from mailsec.store.scratch import FileScratch

__all__ = ["Judged", "judged", "octets_in"]


class Judged(NamedTuple):
    """What was found. Its octets live as long as the `with` around it."""

    result: SmimeResult
    verdict: Verdict
    value: dict[str, Any]
    """The JSON object of `smime verify`."""

    @property
    def decrypted(self) -> bool | None:
        """Whether every encrypted layer was opened; None where there is none."""
        opened = [layer.opened is True for layer in self.result.layers if layer.opened is not None]
        return all(opened) if opened else None


@contextmanager
def judged(output: Output, given: Given, paths: PathInputs, keys: OpeningKeys, **rules: Any) -> Iterator[Judged]:
    """Take the message apart with `keys`, and judge it by what `paths` says; `rules` go to `PathInputs.options`."""
    backend = SoftwareBackend()
    instant = paths.instant()
    believed, helpful, distrusted = paths.trust(output, backend)
    options = paths.options(distrusted=distrusted, **rules)
    scratches: list[FileScratch] = []

    def scratch() -> FileScratch:
        scratches.append(new_scratch())
        return scratches[-1]

    try:
        result = run_now(
            unprotect_message(
                given.message,
                keys=keys.handles,
                backend=backend,
                scratch=scratch,
                work=at_once,
                extra_certificates=[certificate.der for certificate in helpful],
                passwords=keys.passwords,
                secret_keys=keys.secret_keys,
                bare=given.bare,
                profile=options.profile,
            )
        )

        def ask(options: PathOptions, evidence: RevocationEvidence, wanted: list[EvidenceRequest]) -> Verdict:
            return assess(
                result,
                None if given.bare else given.message,
                anchors=believed,
                intermediates=helpful,
                at=instant,
                backend=backend,
                options=options,
                evidence=evidence,
                wanted=wanted,
            )

        lacking: list[EvidenceRequest] = []
        verdict = ask(options, paths.evidence(), lacking)
        if paths.has_database and verdict.chain_valid:
            checking = replace(options, check_revocation=True)
            if not options.check_revocation:
                lacking = []
                ask(checking, paths.evidence(), lacking)
            kept = paths.kept(output, lacking)
            if kept:
                verdict = ask(replace(checking, skip_sourceless=not options.check_revocation), paths.evidence(kept), [])
        value = verdict_json(verdict)
        if given.bare:
            value["text"] = _utf8(given.content if given.content is not None else octets_in(_bare_content(result)))
        yield Judged(result, verdict, value)
    finally:
        for one in scratches:
            one.discard()


def _bare_content(result: SmimeResult) -> Octets | None:
    """The content of a bare object is what it is; only what is signed within it is read as an entity."""
    return result.content if result.content is not None and result.layers[-1].opened is None else result.plaintext


def octets_in(octets: Octets | None) -> bytes | None:
    """All octets; None for none."""
    return None if octets is None else b"".join(bytes(block) for block in octets.blocks())


def _utf8(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
