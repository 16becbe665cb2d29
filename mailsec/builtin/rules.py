"""The rules of the configuration as a plugin: they choose protection and decide through the same hooks as everybody else.

For signing and for encryption the first rule that matches and has an opinion decides. What it leaves open is the partner's
(`model.partner`), then the default: the words beside its own, and "if-possible", which a partner can make "required". The one invariant:
where something is required and cannot be done, the plan holds a refusal (or a wait); never a weaker plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailsec.errors import Reply
from mailsec.hookspecs import hookimpl
from mailsec.mime.addresses import mailboxes
from mailsec.mime.fields import decode_words
from mailsec.mime.kinds import kind_of
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.partner import NOTHING_AGREED, PartnerSettings
from mailsec.model.protection import Candidates, ProtectionPlan
from mailsec.model.session import Transaction
from mailsec.model.verdict import Decision, Reason, Verdict
from mailsec.rules.conditions import Facts
from mailsec.rules.ruleset import Rule, RuleSet
from mailsec.rules.session_variables import SessionFacts

__all__ = ["RulesPlugin"]

_MOST_PLANS = 4096
"""Plans that are remembered."""

_DEFAULTS = {
    "form": "detached",
    "wrap": "sign",
    "header_protection": "no",
    "compress": "no",
    "encrypt_to_sender": "no",
    "profile": "default",
    "failure": "refuse",
}


class RulesPlugin:
    """`plan_protection` and `decide_message` from a `RuleSet`."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._kind: tuple[Message | None, str] = (None, "")
        self._plans: dict[tuple[object, ...], ProtectionPlan] = {}

    # asked before all others, so that every plugin is shown what the rules chose
    @hookimpl(tryfirst=True)
    def plan_protection(self, transaction: Transaction, candidates: Candidates) -> ProtectionPlan:
        """The plan of the first rules that have an opinion about signing and about encryption, and of what is agreed with the partner."""
        facts = self._facts(transaction, candidates.sender, candidates.recipient)
        signing, encryption = self.rules.choose("sign", facts), self.rules.choose("encrypt", facts)
        if candidates.partner is not NOTHING_AGREED:
            return _Choice(self.rules.default, signing, encryption, facts.kind, candidates).plan()
        # Most messages are like the one before: what a plan depends on, and not what it is about.
        key = (
            id(signing),
            id(encryption),
            facts.kind,
            candidates.sender is None,
            candidates.signers,
            candidates.certificates,
            candidates.own_certificates,
            candidates.already_signed,
            candidates.already_encrypted,
            candidates.wait,
            candidates.encryption_wait,
        )
        plan = self._plans.get(key)
        if plan is None:
            plan = _Choice(self.rules.default, signing, encryption, facts.kind, candidates).plan()
            # A refusal names whom it is about.
            if plan.refusal is None:
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                self._plans[key] = plan
        return plan

    @hookimpl
    def decide_message(self, transaction: Transaction, verdict: Verdict | None) -> Decision | None:
        """Inbound: what is required to be trusted and is not meets the rule's `failure`."""
        if verdict is None or not self.rules.has_opinion("inbound"):
            return None
        decision: Decision | None = None
        sender = _author(transaction.message) or transaction.envelope.reverse_path
        for recipient in transaction.envelope.recipients:
            rule = self.rules.choose("inbound", self._facts(transaction, sender, recipient.address))
            if rule.inbound == "required" and not verdict.trusted:
                if rule.failure != "hold":
                    return _untrusted(rule, verdict)
                decision = _untrusted(rule, verdict)
            elif decision is None:
                decision = Decision("deliver", rule=rule.name)
        return decision

    def _facts(self, transaction: Transaction, sender: Address | None, recipient: Address) -> Facts:
        session, message = transaction.session, transaction.message
        if self._kind[0] is not message:
            # Once for a message, however many recipients it has.
            self._kind = (message, kind_of(message))

        def header(name: str) -> Sequence[str]:
            return [decode_words(value) for value in message.values(name)]

        user = session.identity.name if session.identity is not None else ""
        variables = SessionFacts(session.tls, session.peer, user, session.hostname, transaction.received_at)
        return Facts(session.listener, session.origin, user, sender, recipient, header, self._kind[1], variables)


class _Choice:
    """The plan for one recipient: each setting from the rule, the partner, or the default, and which of them gave it."""

    def __init__(self, default: Rule, signing: Rule, encryption: Rule, kind: str, candidates: Candidates) -> None:
        self._default = default
        self._candidates = candidates
        self._partner = candidates.partner
        self._kind = kind
        self._signing = signing
        self._encryption = encryption
        self._levels: list[tuple[str, str, str]] = []

    def plan(self) -> ProtectionPlan:
        candidates = self._candidates
        encrypt = self._word("encrypt", self._encryption)
        required = encrypt == "required"
        encrypt = self._unless_read_by_programs("encrypt", encrypt, self._encryption, required)
        sign = self._unless_read_by_programs("sign", self._word("sign", self._signing), self._signing, required)
        if candidates.already_encrypted and sign != "required":
            # Who wrote it has signed inside, or did not want to; what we cannot read is signed only where a rule insists.
            sign = "never"

        signer, wait, refusal, failure = "", "", None, self._failure(self._signing)
        if sign != "never" and candidates.sender is not None and not candidates.already_signed:
            signer = _signer(self._signing, candidates)
            if not signer and sign == "required":
                wait = candidates.wait
                refusal = None if wait else _no_key(self._signing, candidates)

        recipients: tuple[str, ...] = ()
        # The rule that asks for encryption says how; what it does not say, the one about signing may.
        rules: tuple[Rule, ...] = (self._encryption, self._signing)
        profile = self._attribute("profile", *rules)
        if encrypt != "never" and not candidates.already_encrypted:
            recipients = candidates.fitting(profile)
            if not recipients and candidates.encryption_wait:
                # Also where it is only to be encrypted if possible: nobody gets clear text because a directory or a responder is out.
                wait = wait or candidates.encryption_wait
            elif not recipients and required and refusal is None:
                refusal, failure = _no_certificate(candidates, profile), self._failure(self._encryption)
        if not recipients and not required:
            rules = (self._signing,)
            profile = self._attribute("profile", *rules)
        elif recipients and self._attribute("encrypt_to_sender", self._encryption) == "yes":
            recipients = tuple(dict.fromkeys((*recipients, *candidates.fitting(profile, own=True))))
        triple = bool(recipients) and bool(signer) and self._attribute("wrap", self._encryption) == "triple"
        return ProtectionPlan(
            sign=bool(signer),
            encrypt=bool(recipients),
            signer=signer,
            form=self._attribute("form", self._signing),
            wrap="triple" if triple else "sign",
            compress=bool(recipients) and self._attribute("compress", self._encryption) == "yes",
            header_protection=self._attribute("header_protection", *rules) if signer or recipients or required else "no",
            profile=profile,
            recipients=recipients,
            refusal=refusal,
            failure=failure,
            wait="" if refusal else wait,
            rule=self._name(),
            levels=tuple({entry[0]: entry for entry in self._levels}.values()),
        )

    def _word(self, concern: str, rule: Rule) -> str:
        """ "required", "if-possible" or "never": the rule's, where one has an opinion; "if-possible" leaves the partner to insist."""
        word: str = getattr(rule, concern)
        agreed: str = getattr(self._partner, concern)
        if agreed and (rule is self._default or (word, agreed) == ("if-possible", "required")):
            return self._given(concern, agreed, f"partner {_level(self._partner, concern)}")
        return self._given(concern, word, "default" if rule is self._default else f'rule "{rule.name}"')

    def _unless_read_by_programs(self, concern: str, word: str, rule: Rule, required: bool) -> str:
        """Reports and invitations stay as they are, unless they must be encrypted, or a rule names their kind."""
        if not self._kind or required or rule.condition.kinds is not None or word == "never":
            return word
        return self._given(concern, "never", f"default for mail of the kind {self._kind}")

    def _attribute(self, name: str, *rules: Rule) -> str:
        for rule in rules:
            value: str = getattr(rule, name)
            if value:
                return self._given(name, value, f'rule "{rule.name}"')
        agreed: str = getattr(self._partner, name, "")
        if agreed:
            return self._given(name, agreed, f"partner {_level(self._partner, name)}")
        return self._given(name, _DEFAULTS[name], "default")

    def _failure(self, rule: Rule) -> str:
        if not rule.failure and self._partner.hold == "yes":
            return self._given("failure", "hold", f"partner {_level(self._partner, 'hold')}")
        return self._given("failure", rule.failure or _DEFAULTS["failure"], f'rule "{rule.name}"' if rule.failure else "default")

    def _given(self, setting: str, value: str, level: str) -> str:
        self._levels.append((setting, value, level))
        return value

    def _name(self) -> str:
        """The rules that decided, for logs: without the default one where another did, and the partner where nothing but that did."""
        names = [rule.name for rule in (self._signing, self._encryption) if rule is not self._default]
        if self._partner.encrypt and self._encryption is self._default:
            names.append(f"partner {_level(self._partner, 'encrypt')}")
        return ", ".join(dict.fromkeys(names)) or self._default.name


def _level(partner: PartnerSettings, name: str) -> str:
    return partner.levels.get(name.replace("_", "-"), "")


def _author(message: Message) -> Address | None:
    """The one From address; None where there is none or more than one."""
    values = message.values("from")
    if len(values) != 1:
        return None
    found = mailboxes(values[0])
    return found.addresses[0] if len(found.addresses) == 1 and not found.problems else None


def _signer(rule: Rule, candidates: Candidates) -> str:
    if rule.signer == "from":
        return candidates.signers[0] if candidates.signers else ""
    return rule.signer if rule.signer in candidates.signers else ""


def _no_key(rule: Rule, candidates: Candidates) -> Reason:
    for reason in candidates.missing:
        if reason.code == "no-signing-key" or (reason.code == "key-revoked" and (rule.signer == "from" or rule.signer in reason.message)):
            return reason
    named = "" if rule.signer == "from" else f" called {rule.signer}"
    return Reason(
        "no-signing-key",
        "policy",
        f"rule {rule.name!r} requires a signature, and there is no signing key{named} for {candidates.sender}",
        hint=f"import or issue a certificate with its key for {candidates.sender}, or assign one to it",
    )


def _no_certificate(candidates: Candidates, profile: str) -> Reason:
    if candidates.certificates:
        return Reason(
            "no-certificate",
            "policy",
            f"encryption is required, and no certificate of {candidates.recipient} fits the profile {profile}",
            hint="choose another profile for this partner, or import another certificate",
        )
    for reason in candidates.missing:
        if reason.code in ("no-certificate", "recipient-revoked"):
            return replace(reason, message=f"encryption is required, and {reason.message}")
    return Reason(
        "no-certificate",
        "policy",
        f"encryption is required, and there is no valid certificate of {candidates.recipient}",
        hint=f"import a certificate of {candidates.recipient}",
    )


def _untrusted(rule: Rule, verdict: Verdict) -> Decision:
    why = verdict.reasons[0].message if verdict.reasons else f"smime={verdict.word.value}"
    action = "hold" if rule.failure == "hold" else "refuse"
    # RFC 3463 §3.8: X.7.1 is a policy that forbids delivery. The words are fixed: a reason could quote what was inside encryption.
    reply = Reply(550, "5.7.1", "a trusted S/MIME signature is required here")
    return Decision(action, reply if action == "refuse" else None, reason=why, rule=rule.name)
