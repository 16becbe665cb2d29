"""`docs/from-nss.md` answers every option of NSS's tools and every directive of mod_nss, and lists the cipher suites that the code knows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mailsec.algorithms.tls import SUITES
from mailsec.app.config.load import SECTIONS
from mailsec.app.config.models import Hop, Match
from mailsec.rules.session_variables import NAMES, is_variable

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "from-nss.md").read_text()
TABLE = PAGE.partition("## mod_nss: directives")[2].partition("\n### ")[0]

# Every directive of mod_nss 1.0.18, and httpd's User, which it reads.
DIRECTIVES = re.findall(
    r"\w+",
    """
NSSCertificateDatabase NSSDBPrefix NSSSkipPermissionCheck NSSPassPhraseDialog NSSPassPhraseHelper NSSSessionCacheSize
NSSSessionCacheTimeout NSSSession3CacheTimeout NSSRandomSeed NSSOCSP NSSOCSPDefaultResponder NSSOCSPDefaultURL NSSOCSPDefaultName
NSSEngine NSSFIPS NSSCipherSuite NSSProtocol NSSNickname NSSECCNickname NSSEnforceValidCerts NSSVerifyClient NSSSessionTickets
NSSRenegotiation NSSRequireSafeNegotiation NSSSNI NSSStrictSNIVHostCheck NSSUserName NSSOptions NSSRequireSSL NSSRequire
NSSRenegBufferSize NSSProxyEngine NSSProxyProtocol NSSProxyCipherSuite NSSProxyNickname NSSProxyCheckPeerCN User
""",
)
OPTIONS = ["StdEnvVars", "CompatEnvVars", "ExportCertData", "FakeBasicAuth", "StrictRequire", "OptRenegotiate"]


def rows() -> dict[str, tuple[str, str]]:
    """Directive to (setting, notes)."""
    found = {}
    for line in TABLE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| `") else []
        if cells:
            found[cells[0].strip("` ")] = (cells[1].strip(" |"), cells[-1].strip(" |"))
    return found


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_directive_has_an_answer(directive):
    answers = [answer for name, answer in rows().items() if name.split()[0] == directive]
    assert answers, f"{directive} is not in the table"
    for setting, notes in answers:
        assert setting or len(notes) > 10, f"{directive} has neither a setting nor a reason"


# How each tool says what it takes, and which of its lines name options.
TOOLS = {
    "certutil": (("certutil", "-H"), r"^ *(--?[\w@][\w-]*)(?: *\| *(--?[\w-]+))?"),
    "crlutil": (("crlutil", "-H"), r"^(-\w)\b"),
    "pk12util": (("pk12util", "-H"), r"(?<![\w-])(--?[A-Za-z][\w-]*)"),
    "modutil": (("modutil", "-H"), r"^ *\[?(-[a-z]+)"),
    "cmsutil": (("cmsutil", "-H"), r"^ +(-\w)\b"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_that_a_tool_of_nss_tells_of_is_in_its_table(tool: str):
    command, pattern = TOOLS[tool]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is absent: apt-get install libnss3-tools")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told = {option for found in re.finditer(pattern, done.stdout + done.stderr, re.MULTILINE) for option in found.groups() if option}
    section = re.search(rf"^## [^\n]*\b{tool}\b.*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[0]
    first = [line.partition(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    rows_of = set(re.findall(r"(?<![\w-])--?[\w@][\w-]*", " ".join(first)))
    assert len(told) > 10, "its help has another form"
    assert told <= rows_of, f"no row in the table of {tool} has {sorted(told - rows_of)}"


def test_every_option_has_an_answer():
    assert {name for name in rows() if name.startswith("NSSOptions")} == {f"NSSOptions +{option}" for option in OPTIONS}


def test_settings_of_the_table_exist():
    named = re.findall(r"`\[\[?(\w+)\]\]? ([\w.]+)`", TABLE)
    assert len(named) > 25
    for section, setting in named:
        first, _, rest = setting.partition(".")
        assert first in SECTIONS[section].model_fields, f"[{section}] has no {first}"
        if rest:
            assert rest in {"next_hop": Hop, "match": Match}[first].model_fields, f"{setting} of [{section}] is not there"


def test_cipher_suites_are_listed_with_their_three_names():
    listed = re.findall(r"^\| `([a-z0-9_]+)` \| `([\w-]+)` \| `(\w+)` \| (.*?) ?\|$", PAGE, re.MULTILINE)
    assert listed == [(suite.nss, suite.openssl, suite.iana, suite.weakness) for suite in SUITES]


def test_variables_of_the_page_exist_and_all_are_told_of():
    section = PAGE.partition("### Variables")[2].partition("### ")[0].partition("Not there:")[0]
    words = set(re.findall(r"`([A-Za-z0-9_]+)`", section))
    for name in NAMES:
        short = re.sub(r"^SSL_(CLIENT|SERVER)_(?!VERIFY)|_0$", "", name)
        assert name in words or short in words or f"{short}_n" in words or name.startswith("TIME_"), name
    for word in words:
        plain = word.replace("_n", "_0") if word.endswith("_n") else word
        assert is_variable(word) or is_variable(f"SSL_CLIENT_{plain}") or word == "on", word
