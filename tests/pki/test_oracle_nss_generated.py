"""Generated chains, judged by us and by NSS (`certutil -V -u S`)."""

from __future__ import annotations

import subprocess
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki_authorities import NOW, ask, codes
from test_oracle import authorities, build, ends

_NUMBERS = count(1)


@pytest.fixture(scope="module")
def nss(need, tmp_path_factory):
    certutil = need("certutil", "libnss3-tools")
    folder = tmp_path_factory.mktemp("nss")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([certutil, "-d", f"sql:{folder}", *map(str, arguments)], capture_output=True, text=True)

    run("-N", "--empty-password")

    def verdict(chain) -> tuple[bool, str]:
        number = next(_NUMBERS)
        commands = []
        for index, party in enumerate(chain):
            file = folder / f"{number}-{index}.der"
            file.write_bytes(party.der)
            trust = ",," if index else ",C,"
            commands.append(f"-A -d sql:{folder} -n n{number}-{index} -t {trust} -i {file}")
        batch = folder / "batch"
        batch.write_text("\n".join(commands) + "\n")
        done = run("-B", "-i", batch)
        assert done.returncode == 0, done.stderr
        done = run("-V", "-n", f"n{number}-{len(chain) - 1}", "-u", "S", "-b", f"{NOW:%y%m%d%H%M%S}Z", "-e")
        return done.returncode == 0, done.stdout + done.stderr

    return verdict


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(authorities(), max_size=3), ends())
def test_nss_agrees(nss, levels, end):
    chain = build(levels, end, name=f"NSS {next(_NUMBERS)}")
    ours = ask(chain[-1], *chain[1:-1], anchors=[chain[0]])
    theirs, said = nss(chain)
    # The one difference: NSS takes an authority with extended key usage for no signer of mail (docs/trust.md).
    if ours.valid and end["ca"] and end["purposes"]:
        assert not theirs and "Certificate type not approved" in said
    else:
        assert ours.valid is theirs, (codes(ours), said)
