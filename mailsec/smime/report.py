"""A verdict as people and programs are shown it: the JSON object of the command line, and the Authentication-Results field (RFC 7281 §3).

The one invariant: nothing of a message can make the field say more than one result, or another one.
"""

from __future__ import annotations

from functools import lru_cache

from mailsec.mime.results import result_value
from mailsec.model.verdict import CertificateSummary, LayerReport, Reason, SignerReport, SmimeWord, Verdict

__all__ = ["authentication_results", "certificate_json", "reason_json", "verdict_json"]

_LONGEST_REASON = 300


def reason_json(reason: Reason) -> dict[str, str]:
    """One reason."""
    return {"code": reason.code, "stage": reason.stage, "message": reason.message, "hint": reason.hint, "rfc": reason.rfc}


def certificate_json(certificate: CertificateSummary | None) -> dict[str, object] | None:
    """What is shown of a certificate; instants in RFC 3339."""
    if certificate is None:
        return None
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "addresses": list(certificate.addresses),
        "not_before": None if certificate.not_before is None else _instant(certificate.not_before.isoformat()),
        "not_after": None if certificate.not_after is None else _instant(certificate.not_after.isoformat()),
        "fingerprint": certificate.fingerprint,
    }


def _instant(text: str) -> str:
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _signer_json(signer: SignerReport) -> dict[str, object]:
    return {
        "intact": signer.intact,
        "chains": signer.chains,
        "revocation": signer.revocation.value,
        "matches_from": signer.matches_from,
        "certificate": certificate_json(signer.certificate),
        "digest": signer.digest,
        "signature": signer.signature,
        "signing_time": None if signer.signing_time is None else _instant(signer.signing_time.isoformat()),
        "reasons": [reason_json(reason) for reason in signer.reasons],
    }


def _layer_json(layer: LayerReport) -> dict[str, object]:
    found: dict[str, object] = {"type": layer.type, "signers": [_signer_json(signer) for signer in layer.signers]}
    if layer.opened is not None:
        found["opened"] = layer.opened
    if layer.algorithm:
        found["algorithm"] = layer.algorithm
    found["reasons"] = [reason_json(reason) for reason in layer.reasons]
    return found


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """The JSON object of `smime verify`; None stands for "does not apply". Field names are stable."""
    return {
        "signed": verdict.signed,
        "encrypted": verdict.encrypted,
        "signature_valid": verdict.signature_valid,
        "chain_valid": verdict.chain_valid,
        "revocation": verdict.revocation.value,
        "identity_match": verdict.identity_match,
        "trusted": verdict.trusted,
        "result": verdict.word.value,
        "layers": [_layer_json(layer) for layer in verdict.layers],
        "protected_headers": dict(verdict.protected_headers),
        "text": verdict.text,
        "reasons": [reason_json(reason) for reason in verdict.reasons],
        "error": None,
    }


def authentication_results(verdict: Verdict, authserv_id: str) -> str:
    """The value of our Authentication-Results field: the word, why not, and whose certificate it was (RFC 7281 §3.2.1)."""
    signers = [signer for layer in verdict.layers for signer in layer.signers]
    certificate = signers[-1].certificate if signers and signers[-1].intact else None
    reason = ""
    if verdict.trusted:
        # Programs show who Sender names, too: who reads "pass" is told that this was not proved.
        reason = next((one.message for one in verdict.reasons if one.code == "sender-differs"), "")[:_LONGEST_REASON]
    else:
        reason = next((one.message for one in verdict.reasons if one.code != "revocation-not-checked"), "")[:_LONGEST_REASON]
    # A reason may hold what somebody has written: that is of one message, and is not kept.
    return (_results if reason else _kept_results)(authserv_id, verdict.word, reason, certificate)


def _results(authserv_id: str, word: SmimeWord, reason: str, certificate: CertificateSummary | None) -> str:
    properties: list[tuple[str, str]] = []
    if certificate is not None:
        if certificate.addresses:
            # RFC 7281 §3.2.1: smime-identifier is the address that the certificate belongs to, smime-serial and smime-issuer name it.
            properties.append(("body.smime-identifier", certificate.addresses[0]))
        properties += [("body.smime-serial", certificate.serial), ("body.smime-issuer", certificate.issuer)]
    return result_value(authserv_id, "smime", word.value, reason=reason, properties=properties)


# What is said of one signer's good messages is the same each time.
_kept_results = lru_cache(maxsize=1024)(_results)
