"""`make bench`: mailsec beside its peers, in turn, on one machine, in one run.

Figures of a shared machine drift; ratios of runs that alternate hold. Each case is run once a round, all cases in turn, and medians
are printed as a table and written as JSON. Nothing here is a test: a figure that falls short is shown, not hidden.

    run.py [--json FILE] [--rounds N] [--groups WORD…] [--only LETTER…] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from tests.bench import backlog, database, gateway, handshakes, mailbox, memory, paths, plugins, primitives, reloads, smime, tokens
from tests.bench.load import Load, Sink, peak_memory, send
from tests.peers.postfix import Postfix, why_not

console = Console()

GROUPS = (
    "primitives",
    "paths",
    "database",
    "smime",
    "memory",
    "tokens",
    "handshakes",
    "gateway",
    "mailbox",
    "plugins",
    "backlog",
    "reloads",
)

SMALL = 4096
LARGE = 10 << 20


@dataclass
class Case:
    """One row of the table: how to start it, and what came out."""

    name: str
    start: Callable[[Path, Sink], contextlib.AbstractContextManager[tuple[int, int]]]
    """Yields the port to send to and the process whose memory counts."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    """Messages a second, by load."""
    memory: dict[str, float] = field(default_factory=dict)
    small: bool = False
    """Only messages of 4 KiB over connections that stay."""
    proxy: bool = False
    """In proxy mode: what is answered is there."""


@contextlib.contextmanager
def postfix_relay(directory: Path, sink: Sink) -> Iterator[tuple[int, int]]:
    with Postfix(directory, main={"relayhost": f"[127.0.0.1]:{sink.port}"}) as server:
        assert server.process is not None
        yield server.port, server.process.pid


@contextlib.contextmanager
def postfix_pipe(directory: Path, sink: Sink) -> Iterator[tuple[int, int]]:
    directory.mkdir(parents=True)
    certificate, key = gateway.signing_files(directory)
    script = Path(__file__).with_name("pipe_filter.sh")
    copy = directory / "filter"
    copy.write_bytes(script.read_bytes())
    copy.chmod(0o755)
    master = f"signer unix - n n - 10 pipe\n  flags=q user=nobody null_sender= argv={copy} {certificate} {key} ${{sender}} ${{recipient}}\n"
    main = {"relayhost": f"[127.0.0.1]:{sink.port}", "signer_destination_recipient_limit": "1"}
    server = Postfix(directory / "postfix", main=main, master=master, smtpd_options="-o content_filter=signer:")
    with server:
        assert server.process is not None
        yield server.port, server.process.pid


def cases() -> list[Case]:
    return [
        Case("(a) Postfix, plain relay", postfix_relay),
        Case("(b) Postfix + pipe filter, openssl cms -sign", postfix_pipe),
        Case("(c) mailsec signing, RSA-2048", lambda directory, sink: gateway.running(directory, sink, sign=True, key="rsa-2048")),
        Case("(d) mailsec signing, P-256", lambda directory, sink: gateway.running(directory, sink, sign=True, key="ec-p256")),
        Case("(e) mailsec, plain relay", lambda directory, sink: gateway.running(directory, sink, sign=False, key="ec-p256")),
        Case(
            "(f) mailsec signing and encrypting, RSA-2048, GCM",
            lambda directory, sink: gateway.running(directory, sink, sign=True, encrypt=True, key="rsa-2048"),
            small=True,
        ),
        Case(
            "(g) mailsec opening and verifying, RSA-2048, GCM",
            lambda directory, sink: gateway.running(directory, sink, sign=False, opening=True, key="rsa-2048"),
            small=True,
        ),
        Case(
            "(h) mailsec, proxy mode",
            lambda directory, sink: gateway.running(directory, sink, sign=False, key="ec-p256", proxy=True),
            proxy=True,
        ),
    ]


def measure(rows: list[Case], rounds: int, scale: float) -> dict[str, list[float]]:
    """Run all cases in turn, `rounds` times; a first small run of each case warms it up and does not count.

    Returns the bare signature rates of each round, so that shares are of the same minutes, too.
    """
    loads = [
        Load(int(6000 * scale), SMALL, 20, reuse=True),
        Load(int(4000 * scale), SMALL, 20, reuse=False),
        Load(max(8, int(60 * scale)), LARGE, 4, reuse=True),
    ]
    sink = Sink()
    bare: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        for name, rate in primitives.signature_rates().items():
            bare.setdefault(name, []).append(rate)
        for case in rows:
            with tempfile.TemporaryDirectory(prefix="mailsec-bench-") as name, case.start(Path(name) / "case", sink) as (port, pid):
                file = Path(name) / "case" / gateway.LETTER
                letter = file if file.exists() else None
                send(port, sink, Load(200, SMALL, 20, reuse=True, letter=letter, answered=case.proxy), timeout=120)
                for load in loads[:1] if case.small else loads:
                    # The pipe filter is some thirty times slower: fewer messages give the same accuracy.
                    few = (
                        max(8, load.messages // 15) if case.name.startswith("(b)") else load.messages // 3 if case.small else load.messages
                    )
                    actual = replace(load, messages=few, letter=letter, answered=case.proxy)
                    seconds = send(port, sink, actual, timeout=600)
                    rate = actual.messages / seconds
                    case.figures.setdefault(load.name, []).append(rate)
                    console.print(f"  round {number}/{rounds}  {case.name:<46} {load.name:<28} {rate:9.1f} messages/s", highlight=False)
                for process, peak in peak_memory(pid).items():
                    label = process.partition(" ")[2]
                    case.memory[label] = max(case.memory.get(label, 0.0), peak)
    return bare


def median(case: Case, load: str) -> float:
    return statistics.median(case.figures[load]) if case.figures.get(load) else float("nan")


def ratio(rows: list[Case], above: str, below: str, load: str) -> float:
    """Median of the ratios of runs of one round."""
    by_name = {case.name[:3]: case for case in rows}
    if above not in by_name or below not in by_name:
        return float("nan")
    pairs = zip(by_name[above].figures.get(load, []), by_name[below].figures.get(load, []), strict=False)
    ratios = [one / other for one, other in pairs]
    return statistics.median(ratios) if ratios else float("nan")


def goals(rows: list[Case], limits: dict[str, float], bare: dict[str, list[float]]) -> list[tuple[str, float, float, float]]:
    """What must be reached, as (what, figure, must, aim)."""
    reused = Load(0, SMALL, 0, reuse=True).name
    large = Load(0, LARGE, 0, reuse=True).name
    signing = next((case for case in rows if case.name.startswith("(c)")), None)
    shares = (
        [rate / limit for rate, limit in zip(signing.figures[reused], bare["RSA-2048 signatures/s, two processes"], strict=True)]
        if signing and bare
        else []
    )
    share = statistics.median(shares) if shares else float("nan")
    found = [
        ("(c) / (b), 4 KiB reused", ratio(rows, "(c)", "(b)", reused), 20, 30),
        ("(c) / (a), 4 KiB reused", ratio(rows, "(c)", "(a)", reused), 1.5, 2),
        ("(c) / RSA-2048 limit of two cores", share, 0.35, 0.45),
        ("(d) / (b), 4 KiB reused", ratio(rows, "(d)", "(b)", reused), 40, 60),
        ("(e) / (a), 4 KiB reused", ratio(rows, "(e)", "(a)", reused), 4, 6),
        ("(h) / (e), 4 KiB reused", ratio(rows, "(h)", "(e)", reused), 1, 1),
        ("(c) / (a), 10 MiB", ratio(rows, "(c)", "(a)", large), 1, 1),
        ("DATA in memory / stock twisted.mail.smtp, 4 KiB", limits.get("DATA in memory, ratio to twisted.mail", math.nan), 6, 10),
        ("ten idle plugins: us a message (at most)", limits.get("ten idle plugins, a message (us)", math.nan), 30, 20),
        ("100 MiB signed: MiB above an idle worker (at most)", limits.get("100 MiB signed, MiB above idle", math.nan), 64, 64),
    ]
    return (
        [row for row in found if not math.isnan(row[1])]
        + paths.goals(limits)
        + database.goals(limits)
        + smime.goals(limits)
        + mailbox.goals(limits)
        + reloads.goals(limits)
        + handshakes.goals(limits)
        + tokens.goals(limits)
        + backlog.goals(limits)
    )


def print_tables(rows: list[Case], limits: dict[str, float], bare: dict[str, list[float]]) -> None:
    loads = list(dict.fromkeys(load for case in rows for load in case.figures))
    table = Table(title="messages per second, end to end (median of rounds)")
    table.add_column("case")
    for load in loads:
        table.add_column(load, justify="right")
    table.add_column("peak memory, largest process", justify="right")
    for case in rows:
        cells = []
        for load in loads:
            value = median(case, load)
            if math.isnan(value):
                cells.append("")
                continue
            size = LARGE / 1e6 if "MiB" in load else 0
            cells.append(f"{value:,.1f}" + (f" ({value * size:,.0f} MB/s)" if size else ""))
        peak = max(case.memory.values(), default=float("nan"))
        table.add_row(case.name, *cells, f"{peak:,.0f} MiB")
    if rows:
        console.print(table)
    other = Table(title="limits and single figures, same run")
    other.add_column("figure")
    other.add_column("value", justify="right")
    for name, value in ({name: statistics.median(rates) for name, rates in bare.items()} | limits).items():
        other.add_row(name, f"{value:,.1f}" if value >= 10 else f"{value:,.2f}")
    console.print(other)
    result = Table(title="goals")
    for name in ("what", "figure", "must", "aim", ""):
        result.add_column(name, justify="left" if name == "what" else "right")
    for what, figure, must, aim in goals(rows, limits, bare):
        reached = figure <= must if "at most" in what else figure >= must
        result.add_row(what, f"{figure:,.2f}", f"{must:g}", f"{aim:g}", "reached" if reached else "short")
    console.print(result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=GROUPS, metavar="WORD", help=f"only these: {' '.join(GROUPS)}")
    parser.add_argument("--only", nargs="*", default=[], help="cases, by letter: a b c d e f g h")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    arguments = parser.parse_args()
    reason = why_not()
    rows = [case for case in cases() if "gateway" in arguments.groups and (not arguments.only or case.name[1] in arguments.only)]
    if reason and rows:
        console.print(f"no Postfix here ({reason}): its rows are left out")
        rows = [case for case in rows if "Postfix" not in case.name]
    started = time.time()
    console.print(f"{os.cpu_count()} processors; {len(rows)} cases, {arguments.rounds} rounds")
    scale = 0.1 if arguments.quick else 1.0
    limits: dict[str, float] = {}
    bare: dict[str, list[float]] = {}
    if "primitives" in arguments.groups:
        limits |= primitives.figures()
    if "paths" in arguments.groups:
        limits |= paths.figures()
    if "plugins" in arguments.groups:
        limits |= plugins.figures()
    if "database" in arguments.groups:
        limits |= database.figures(scale / 20 if arguments.quick else scale)
    if "smime" in arguments.groups:
        limits |= smime.figures(arguments.rounds, scale, lambda text: console.print(text, highlight=False))
    if "mailbox" in arguments.groups:
        limits |= mailbox.figures(arguments.rounds, scale)
    if "reloads" in arguments.groups:
        limits |= reloads.figures(reloads=2 if arguments.quick else 5)
    if "memory" in arguments.groups:
        limits["100 MiB signed, MiB above idle"] = memory.signed_100_mib()
    if "tokens" in arguments.groups:
        limits |= tokens.figures()
    if "handshakes" in arguments.groups:
        limits |= handshakes.figures(arguments.rounds, 100 if arguments.quick else 400)
    if "backlog" in arguments.groups:
        limits |= backlog.figures(scale)
    if "gateway" in arguments.groups:
        bare = measure(rows, arguments.rounds, scale)
    print_tables(rows, limits, bare)
    if arguments.json:
        document = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "processors": os.cpu_count(),
            "cases": {case.name: {"messages_per_second": case.figures, "peak_mib": case.memory} for case in rows},
            "bare_signatures_per_second": bare,
            "limits": limits,
            "goals": [dict(zip(("what", "figure", "must", "aim"), row, strict=True)) for row in goals(rows, limits, bare)],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
        console.print(f"written: {arguments.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
