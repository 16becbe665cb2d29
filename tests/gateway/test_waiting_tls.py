"""What a waiting row keeps of the TLS session that it came by: all that rules may ask when it is processed again."""

from __future__ import annotations

import json

import pytest

from mailsec.errors import Tampered
from mailsec.gateway.waiting import read_session, write_session
from mailsec.model.session import Origin, Session, TlsInfo
from mailsec.rules.session_variables import NAMES, SessionFacts
from tests.rules.test_expressions import ALICE, NOW

SESSION = Session("1", "submission", Origin.SUBMISSION, "192.0.2.1")


@pytest.mark.parametrize("shown", [ALICE.der, None], ids=["certificate", "none"])
@pytest.mark.parametrize("verified", [True, False])
def test_variables_are_the_same_when_the_row_is_processed_again(shown, verified):
    tls = TlsInfo(
        "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, shown, verified, "gw.example.org", "x25519", True, ("why",), (b"chain",), None, ALICE.der
    )
    session = Session("1", "submission", Origin.SUBMISSION, "192.0.2.1", tls=tls)
    again = read_session(write_session(session))
    for name in NAMES:
        assert SessionFacts(again.tls, at=NOW)(name) == SessionFacts(tls, at=NOW)(name), name


def test_row_of_an_older_mailsec_is_read_and_an_odd_one_refused():
    value = json.loads(write_session(SESSION))
    value["tls"] = ["TLSv1.3", "TLS_AES_256_GCM_SHA384", 256]
    assert read_session(json.dumps(value).encode()).tls == TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
    for odd in ([], ["TLSv1.3"], ["a", "b", 1, "c"], ["a", "b", 1, "c", "d", False, True, "no base64!", None], "x"):
        value["tls"] = odd
        with pytest.raises(Tampered):
            read_session(json.dumps(value).encode())
