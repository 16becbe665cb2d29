"""What is found out about one signature, and how it is told: findings, and Authentication-Results (RFC 8601 §2.7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailsec.mime.results import result_value
from mailsec.model.verdict import Finding

__all__ = ["FAIL", "NONE", "PASS", "PERMERROR", "POLICY", "TEMPERROR", "Fault", "Result", "as_finding", "results_value"]

PASS, FAIL, POLICY, PERMERROR, TEMPERROR, NONE = "pass", "fail", "policy", "permerror", "temperror", "none"

_SEVERITY = {PASS: "info", NONE: "info"}


class Fault(Exception):
    """Why a signature does not pass: a word of RFC 8601, a code, and a text for people."""

    def __init__(self, word: str, code: str, message: str) -> None:
        super().__init__(message)
        self.word = word
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Result:
    """One signature; `word` is that of RFC 8601 §2.7.1."""

    word: str
    code: str
    message: str
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    signature: str = ""
    """The first characters of b=, by which a field is known (RFC 6008)."""
    bits: int = 0
    testing: bool = False
    """The domain is testing DKIM (t=y): it says that nothing is to follow from it."""
    aligned: bool = False
    """The domain is that of the one From address, or stands above it."""


def as_finding(result: Result) -> Finding:
    """What plugins that decide are shown. The severity is never "failure": a signature that cannot be checked stops no mail."""
    data = {
        "result": result.word,
        "domain": result.domain,
        "selector": result.selector,
        "algorithm": result.algorithm,
        "identity": result.identity,
        "bits": str(result.bits) if result.bits else "",
        "testing": "yes" if result.testing else "",
        "aligned": "yes" if result.aligned else "no" if result.domain else "",
    }
    kept = {name: value for name, value in data.items() if value}
    return Finding("dkim", f"dkim-{result.code}", result.message, _SEVERITY.get(result.word, "warning"), kept)


def results_value(authserv_id: str, results: Sequence[Result]) -> str:
    """The value of one Authentication-Results field with all results."""
    parts: list[str] = []
    for one in results:
        properties = [("header.d", one.domain), ("header.s", one.selector), ("header.a", one.algorithm), ("header.b", one.signature)]
        value = result_value(
            authserv_id,
            "dkim",
            one.word,
            reason="" if one.word in (PASS, NONE) else one.message,
            comment="testing" if one.testing else "",
            properties=[(name, text) for name, text in properties if text],
        )
        parts.append(value if not parts else value.partition("; ")[2])
    return "; ".join(parts)
