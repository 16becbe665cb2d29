"""What the steps of the outbound path say, in words, for `mailsec explain`."""

from __future__ import annotations

from mailsec.gateway.already import Already
from mailsec.gateway.correspondents import Correspondent, Judged
from mailsec.gateway.keyring import Signers
from mailsec.model.protection import ProtectionPlan
from mailsec.x509.certificate import load_certificate

__all__ = ["describe_candidates", "describe_correspondent", "describe_plan", "describe_settings"]


def describe_candidates(signers: Signers, already: Already) -> str:
    """Who may sign, and what the message is already."""
    if already.encrypted:
        return "encrypted by its author already"
    if already.signed:
        return "signed by its author already"
    if signers.names:
        return f"keys that may sign: {', '.join(signers.names)}"
    return f"no key at hand, waits for {signers.wait}" if signers.wait else "no key that may sign"


def describe_correspondent(found: Correspondent) -> str:
    """Which certificates of one address are used, and why each other one is not."""
    chosen = [f"{_called(one)}: used" for one in found.chosen]
    others = [f"{_called(one)}: not used, {one.reason.message}" for one in found.others if one.reason is not None]
    lines = [*chosen, *others] or [found.missing.message if found.missing is not None else "none is known"]
    return f"{found.address}: {'; '.join(lines)}"


def _called(judged: Judged) -> str:
    certificate = load_certificate(judged.found.der)
    key = f"{certificate.key_type} {certificate.bits}" if certificate.key_type == "rsa" else certificate.key_type
    until = f" until {certificate.not_after:%Y-%m-%d}" if certificate.not_after is not None else ""
    for_whom = f" for all of @{judged.found.domain}" if judged.found.domain else ""
    return f"{judged.fingerprint[:16]} ({key}{until}, from {judged.found.source}{for_whom})"


def describe_plan(plan: ProtectionPlan) -> str:
    """What is done, in its order."""
    if plan.refusal is not None:
        return f"{plan.failure}: {plan.refusal.message}"
    if plan.wait:
        return f"wait for {plan.wait}"
    done: list[str] = []
    if plan.sign:
        done.append(f"sign ({plan.form}) with {plan.signer}")
    if plan.encrypt:
        done += ["compress"] if plan.compress else []
        done.append(f"encrypt to {len(plan.recipients)} certificate{'s' if len(plan.recipients) != 1 else ''}")
        done += ["sign again"] if plan.wrap == "triple" else []
    return ", ".join(done) or "relay as it is"


def describe_settings(plan: ProtectionPlan) -> str:
    """Each setting with its value, and the level that gave it: rule, partner, default."""
    return "; ".join(f"{name.replace('_', ' ')} {value} ({level})" for name, value, level in plan.levels)
