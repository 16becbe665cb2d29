"""`mailsec queue`: what it shows, what it writes, with and without a running owner."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import socket
from pathlib import Path

import pytest

from mailsec.app.cli import run
from mailsec.app.output import Output
from mailsec.model.queue import RecipientState, State
from mailsec.store.spool import SqliteSpool
from tests.store import spool_support as support


@pytest.fixture
def spool(tmp_path):
    """A spool with a row in each state, owned by this process until it is closed."""
    spool = SqliteSpool(tmp_path, 0, support.KEY, support.Runtime(), reserve=0)
    spool.open()

    async def fill():
        await spool.commit(
            [
                support.entry("t1.1", recipients=("bob@example.net", "carol@example.com")),
                support.entry("t1.2", os.urandom(300_000)),
                support.entry("t2", state=State.RAW, need="token:HSM"),
                support.entry("t3", state=State.HELD, reason="looks \x1b[31modd"),
            ]
        )
        rows = await spool.take_ready(1)
        progress = ((RecipientState.DELIVERED, "250 ok"), (RecipientState.WAITING, "450 4.2.1 later"))
        await spool.settle(rows[0].row, progress, next_attempt=spool.runtime.now().timestamp() + 3600)

    asyncio.run(fill())
    yield spool
    spool.close()


def call(spool, *arguments):
    """(exit code, standard output, standard error)"""
    out, err = io.StringIO(), io.StringIO()
    code = run(["queue", arguments[0], "--spool", spool.directory, *arguments[1:]], Output(out, err))
    return code, out.getvalue(), err.getvalue()


def entries(spool, *arguments):
    code, out, _ = call(spool, "list", "--json", *arguments)
    assert code == 0
    return {entry["id"]: entry for entry in json.loads(out)["entries"]}


def test_the_list_is_for_people_and_for_programs(spool):
    code, out, _ = call(spool, "list")
    assert code == 0
    assert "4 messages" in out
    assert "carol@example.com" in out
    assert "bob@example.net, carol" not in out  # bob has it already
    assert "450 4.2.1 later" in out
    assert "\x1b" not in out
    found = entries(spool)
    assert list(found) == ["t1.1", "t1.2", "t2", "t3"]
    assert found["t1.1"]["recipients"][0] == {"address": "bob@example.net", "state": "delivered", "reply": "250 ok"}
    assert found["t1.1"]["attempts"] == 1
    assert found["t2"]["need"] == "token:HSM"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--state", "held"], ["t3"]),
        (["--state", "waiting"], ["t1.1"]),
        (["--recipient", "CAROL"], ["t1.1"]),
        (["--sender", "alice@", "--state", "raw"], ["t2"]),
        (["--sender", "<>"], []),
        (["--older", "1s"], ["t1.1", "t1.2", "t2", "t3"]),
        (["--older", "99999d"], []),
    ],
)
def test_filters(spool, arguments, expected):
    assert list(entries(spool, *arguments)) == expected


def test_a_wish_is_written_and_the_owner_is_woken(spool):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
        wake.bind(spool.base + ".wake")
        code, out, _ = call(spool, "hold", "t1")
        assert code == 0
        assert "2 messages held in a moment" in out
        assert wake.recv(10) == b"\n"
    assert not entries(spool)["t1.1"]["paused"]  # only the owner changes states
    asyncio.run(spool.carry_out_wishes())
    assert [id for id, entry in entries(spool).items() if entry["paused"]] == ["t1.1", "t1.2"]


def test_it_works_when_nothing_runs(spool):
    spool.close()
    code, out, _ = call(spool, "delete", "t1.2", "--json")
    assert json.loads(out) == {"messages": ["t1.2"], "count": 1, "carried_out": True, "error": None}
    assert list((Path(spool.directory) / "spool-0.bodies").iterdir()) == []
    call(spool, "release", "t3")
    found = entries(spool)
    assert list(found) == ["t1.1", "t2", "t3"]
    assert found["t3"]["state"] == "raw"
    code, out, _ = call(spool, "flush")
    assert code == 0
    spool.open()
    assert [row.entry.id for row in asyncio.run(spool.take_ready())] == ["t1.1"]


def test_nothing_is_deleted_by_a_command_that_names_nothing(spool):
    code, _, err = call(spool, "delete")
    assert code == 2
    assert "--all" in err
    assert len(entries(spool)) == 4


def test_an_unknown_id_is_a_no(spool):
    code, out, err = call(spool, "show", "t9")
    assert code == 1
    assert "no message t9" in err
    code, out, _ = call(spool, "release", "t9", "--json")
    assert code == 1
    assert json.loads(out)["error"]["message"]


def test_show_tells_all(spool):
    code, out, _ = call(spool, "show", "t1.1")
    assert code == 0
    assert "bob@example.net: delivered (250 ok)" in out
    assert "alice@example.org" in out
    code, out, _ = call(spool, "show", "t3")
    assert "looks \\x1b[31modd" in out or "\x1b" not in out


def test_no_spool_is_an_error_with_a_hint(tmp_path):
    out, err = io.StringIO(), io.StringIO()
    assert run(["queue", "list", "--spool", str(tmp_path / "none")], Output(out, err)) == 1
    assert "hint" in err.getvalue()


def test_the_list_prints_what_the_page_says(spool):
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
    section = page.partition("\n## queue list\n")[2].partition("\n## ")[0]
    entry = entries(spool)["t1.1"]
    row, recipient, domain = re.findall(r"`\{([^}]*)\}`", section)
    summary = json.loads(call(spool, "list", "--summary", "--json")[1])
    assert set(re.findall(r'"([a-z_]+)"', domain)) == set(summary["domains"][0])
    assert set(re.findall(r'"([a-z_]+)"', row)) == set(entry)
    assert set(re.findall(r'"([a-z_]+)"', recipient)) == set(entry["recipients"][0])
    assert {one["state"] for one in entries(spool).values()} == set(re.findall(r"`(raw|ready|held)`", section))


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--listener", "submission"], {"t1.1", "t1.2", "t2", "t3"}),
        (["--listener", "other"], set()),
        (["--origin", "internet"], set()),
        (["--reason", "later"], {"t1.1"}),
        (["--reason", "token:hsm"], {"t2"}),
        (["--newer", "1s"], set()),
        (["--older", "1s", "--state", "raw"], {"t2"}),
        (["--message-id", "nothing"], set()),
        (["--limit", "2"], {"t1.1", "t1.2"}),
    ],
)
def test_every_filter_that_is_given_must_fit(spool, filters, ids):
    assert set(entries(spool, *filters)) == ids


def test_a_summary_says_for_which_domains_mail_waits_and_mostly_why(spool):
    code, out, _ = call(spool, "list", "--summary")
    assert code == 0 and re.search(r"example\.com +1 .*450 4\.2\.1 later", out), out
    assert "4 messages: 1 held, 1 raw, 2 ready" in out
    code, out, _ = call(spool, "list", "--summary", "--json")
    found = json.loads(out)
    assert found["states"] == {"held": 1, "raw": 1, "ready": 2} and found["count"] == 4
    # bob@example.net has t1.1 already; the other three rows are for him
    assert {row["domain"]: row["messages"] for row in found["domains"]} == {"example.net": 3, "example.com": 1}


def test_retry_begins_anew_with_what_waits_and_with_what_is_held(spool):
    code, out, _ = call(spool, "retry", "t1.1", "t3")
    assert code == 0 and "2 messages tried again in a moment" in out
    asyncio.run(spool.carry_out_wishes())
    found = entries(spool)
    assert found["t1.1"]["attempts"] == 0 and found["t3"]["state"] == "raw"

    async def due():
        return [row.entry.id for row in await spool.take_ready()]

    assert "t1.1" in asyncio.run(due())
    # nothing is tried twice at once: what is under way stays so
    assert call(spool, "retry", "t1.1")[0] == 0
    asyncio.run(spool.carry_out_wishes())
    assert "t1.1" not in asyncio.run(due())


def test_what_is_meant_must_be_said(spool):
    code, _, err = call(spool, "retry")
    assert code == 2 and "retry what?" in err
    code, _, err = call(spool, "retry", "t9")
    assert code == 1 and "no message t9" in err


def test_wishes_for_ten_thousand_messages_are_carried_out(tmp_path):
    spool = SqliteSpool(tmp_path, 0, support.KEY, support.Runtime(), reserve=0)
    spool.open()

    async def fill():
        for start in range(0, 10_000, 1000):
            await spool.commit([support.entry(f"m{number}") for number in range(start, start + 1000)])

    async def carry_out():
        while await spool.carry_out_wishes():
            pass

    asyncio.run(fill())
    code, out, _ = call(spool, "hold", "--all")
    assert code == 0 and "10000 messages held in a moment" in out
    asyncio.run(carry_out())
    assert len(entries(spool, "--state", "paused")) == 10_000
    spool.close()
    code, out, _ = call(spool, "delete", "--all")
    assert code == 0 and "10000 messages deleted" in out
    assert "the queue is empty" in call(spool, "list")[1]
