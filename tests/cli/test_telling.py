"""What people read of a verdict: every reason once, beside the answer that it explains, with what to do."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from mailsec.app.output import Output
from mailsec.app.telling import headline, tell_verdict
from mailsec.model.verdict import CertificateSummary, LayerReport, Reason, Revocation, SignerReport, SmimeWord, Verdict

AT = datetime(2026, 1, 31, tzinfo=UTC)
ALICE = CertificateSummary("CN=Alice", "CN=A CA", "01", ("alice@example.org",), AT, AT)
CHANGED = Reason("digest-differs", "integrity", "the content was changed", "ask again", "RFC 5652 §5.6")
UNTRUSTED = Reason("untrusted-root", "path", "nobody knows CN=A CA", "trust it")
WEAK = Reason("weak-digest", "policy", "sha1 is weak", "use sha256")
OTHER = Reason("address-differs", "identity", "it names somebody else", "look twice")
LIMIT = Reason("too-many-layers", "limits", "there are more layers than are read")


def told(verdict: Verdict, **how: object) -> str:
    out = io.StringIO()
    tell_verdict(Output(out, io.StringIO()), verdict, **how)
    return out.getvalue()


def verdict(word: SmimeWord, *signers: SignerReport, reasons: tuple[Reason, ...] = (), layers: tuple[LayerReport, ...] = ()) -> Verdict:
    return Verdict(
        word=word,
        signed=bool(signers),
        encrypted=False,
        signature_valid=None,
        chain_valid=None,
        revocation=Revocation.NOT_CHECKED,
        identity_match=None,
        trusted=word is SmimeWord.PASS,
        layers=layers or ((LayerReport("signed-data", signers),) if signers else ()),
        reasons=reasons or tuple(reason for signer in signers for reason in signer.reasons),
    )


def signer(
    intact: bool, chains: bool | None, matches: bool | None, *reasons: Reason, certificate: CertificateSummary | None = ALICE
) -> SignerReport:
    return SignerReport(intact, chains, Revocation.NOT_CHECKED, matches, certificate, "sha256", "rsassa-pss", AT, reasons)


def test_a_reason_stands_beside_the_answer_that_it_explains():
    text = told(verdict(SmimeWord.POLICY, signer(True, False, False, UNTRUSTED, OTHER)))
    lines = text.splitlines()
    chains = next(index for index, line in enumerate(lines) if "chains" in line)
    assert "✗" in lines[chains] and "nobody knows CN=A CA" in lines[chains] and "trust it" in lines[chains + 1]
    matches = next(index for index, line in enumerate(lines) if "matches From" in line)
    assert "✗" in lines[matches] and "somebody else" in lines[matches] and "look twice" in lines[matches + 1]
    assert "alice@example.org (CN=Alice)" in text and "CN=A CA" in text


@pytest.mark.parametrize("reason", [CHANGED, UNTRUSTED, WEAK, OTHER, LIMIT], ids=lambda reason: reason.code)
def test_every_reason_is_told_once_wherever_it_stands(reason):
    for one in (
        verdict(SmimeWord.POLICY, signer(True, True, True, reason)),
        verdict(SmimeWord.POLICY, signer(True, True, True), reasons=(reason,)),
        verdict(SmimeWord.POLICY, layers=(LayerReport("enveloped-data", (), False, "aes-256-cbc", (reason,)),), reasons=(reason,)),
    ):
        assert told(one).count(reason.message) == 1
        assert told(one).count(f"[{reason.code}") == 1


def test_layers_are_counted_from_the_outside_in():
    one = verdict(
        SmimeWord.NONE,
        layers=(LayerReport("enveloped-data", (), True, "aes-256-gcm"), LayerReport("signed-data", (signer(True, True, True),))),
    )
    text = told(one)
    assert text.index("1 enveloped-data, aes-256-gcm") < text.index("2 signed-data")


def test_every_word_has_a_sentence_and_only_pass_reads_as_trust():
    for word in SmimeWord:
        text = headline(verdict(word))
        assert f"(smime={word.value})" in text
        assert text.startswith("trusted") == (word is SmimeWord.PASS)


def test_attack_escape_sequences_in_a_certificate_reach_no_terminal():
    evil = CertificateSummary("CN=\x1b[2Jtrusted", "CN=A\u202eCA", "01", (), AT, AT)
    text = told(verdict(SmimeWord.POLICY, signer(True, False, None, certificate=evil)))
    assert "\x1b" not in text and "\u202e" not in text


def test_a_terminal_that_knows_ascii_only_gets_ascii():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    tell_verdict(Output(out, io.StringIO()), verdict(SmimeWord.FAIL, signer(False, None, None, Reason("x", "integrity", "changed", "ask"))))
    out.flush()
    assert b"X intact" in out.buffer.getvalue() and b"-> ask" in out.buffer.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_that_is_too_wide_for_the_terminal_is_told_row_by_row(monkeypatch):
    rows = [["alice@example.org", "u,u,u", "a long subject " * 3], ["bob@example.org", "", "short"]]
    for columns, together in ((40, False), (120, True)):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = Terminal()
        Output(out, io.StringIO()).table(["nickname", "trust", "names"], rows)
        lines = out.getvalue().splitlines()
        assert any("alice@example.org" in line and "u,u,u" in line for line in lines) == together
        assert any("alice@example.org" in line for line in lines)
        assert ("nickname  alice@example.org" in lines) != together


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_lines_are_no_wider_than_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    long = Reason("untrusted-root", "path", "word " * 40, "hint " * 40)
    tell_verdict(Output(out, io.StringIO()), verdict(SmimeWord.POLICY, signer(True, False, True, long)), "message.eml")
    assert all(len(line) <= columns for line in out.getvalue().splitlines())
