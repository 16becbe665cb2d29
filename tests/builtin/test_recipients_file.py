"""Recipients by a file."""

from __future__ import annotations

import pytest

from mailsec.builtin.recipients_file import RecipientsFile, read_recipients
from mailsec.errors import ConfigurationError, Unavailable
from mailsec.model.address import Address
from mailsec.testing.runtime import FakeRuntime


def test_who_stands_in_the_file_exists_and_nobody_else(tmp_path):
    path, runtime = tmp_path / "recipients", FakeRuntime()
    path.write_text("# people\nalice@example.org\n\n@lists.example.org\n@.sub.example.org\n")
    directory = RecipientsFile(str(path), runtime)

    def exists(text: str) -> bool | None:
        return runtime.run(directory.exists(Address.parse(text)))

    assert exists("alice@example.org") and exists("ALICE@EXAMPLE.ORG") and exists("x@lists.example.org") and exists("x@a.sub.example.org")
    assert not any(map(exists, ("bob@example.org", "alice@lists.example.net", "x@sub.example.org")))
    path.write_text("bob@example.org\n")
    assert not exists("bob@example.org")
    runtime.advance(1)
    assert exists("bob@example.org") and not exists("alice@example.org")
    path.unlink()
    runtime.advance(1)
    with pytest.raises(Unavailable) as away:
        exists("bob@example.org")
    assert away.value.reply.code == 451


@pytest.mark.parametrize("line", ["alice", "@", "*", "alice@example.org bob@example.org", "@.", "\x00"])
def test_line_that_is_no_address_is_refused(line):
    with pytest.raises(ConfigurationError, match="line 2"):
        read_recipients(f"a@b.example\n{line}\n")
