"""`python -m tests.fuzz.explore [TARGET] [--seconds N]`: atheris (libFuzzer) looks for inputs that reach new code and break an invariant.

What it finds is written to `tests/fuzz/found/TARGET-...`, where the tests look at it from then on. Its corpus lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from .targets import Target

NAMES = ("asn1", "cms", "mime", "unprotect")
FOUND = Path(__file__).resolve().parent / "found"

__all__ = ["FOUND", "NAMES", "target_named"]


def target_named(name: str) -> Target:
    """The target of one of `NAMES`."""
    found: Target = import_module(f"{__package__}.targets.{name}").TARGET
    return found


def check(target: Target, data: bytes) -> None:
    """For libFuzzer, which wants no answer."""
    target.check(data)


def explore(name: str, seconds: int) -> None:
    """Look for `seconds`; ends the process."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is absent: pip install atheris (Linux on x86-64; elsewhere it needs clang)")
    with atheris.instrument_imports(include=["mailsec"]):
        target = target_named(name)
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate((*target.seeds(), *target.others())):
        (folder / f"seed-{number}").write_bytes(seed)
    words = folder.with_suffix(".words")
    words.write_text("".join('"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n' for word in target.words))
    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=20000", f"-dict={words}"]
    FOUND.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={FOUND / name}-", str(folder)], lambda data: check(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.explore", description="look for inputs that break an invariant")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=300)
    given = parser.parse_args()
    explore(given.target, given.seconds)
