"""`docs/reasons.md` lists every reason code that the code gives, with its stage, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
# Functions that make a Reason of their first argument, and the stage that they give it where it is one; "" for several.
MAKERS = {
    "_Refused": "integrity",
    "_problem": "",
    "_note": "revocation",
    "note": "revocation",
    "_unknown": "revocation",
    "doubt": "identity",
}


def made() -> dict[str, set[str]]:
    """Code to stages ("" where the call does not say), over all modules."""
    found: dict[str, set[str]] = {}
    for path in sorted((PROJECT / "mailsec").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            code = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
            if not isinstance(code, str) or not CODE.match(code):
                continue
            if name == "Reason" and len(call.args) > 1:
                stage = call.args[1].value if isinstance(call.args[1], ast.Constant) else ""
            elif name == "add" and path.parts[-2:] == ("pki", "steps.py"):
                stage = "path"
            elif name in MAKERS:
                stage = MAKERS[name]
                if name == "doubt":
                    for field in ("from", "sender"):
                        found.setdefault(f"{field}-{code}", set()).add(stage)
                    continue
            else:
                continue
            found.setdefault(code, set()).add(stage)
    # Families whose second half is a word of the code: what a repair tries, and budgets that are spent.
    for words in re.findall(r'yield "([a-z-]+)"|yield \(\s*"([a-z-]+)"', (PROJECT / "mailsec/smime/repair.py").read_text()):
        found.setdefault("damaged-" + "".join(words), set()).add("integrity")
    for words in re.findall(r'self\.exhausted or "([a-z_]+)"', (PROJECT / "mailsec/pki/budget.py").read_text()):
        found.setdefault(words.replace("_", "-"), set()).add("limits")
    return found


def listed() -> dict[str, str]:
    """Code to the row that lists it."""
    rows = [line for line in (PROJECT / "docs/reasons.md").read_text().splitlines() if line.startswith("| `")]
    found: dict[str, str] = {}
    for row in rows:
        for code in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1]):
            assert code not in found, f"{code} stands twice"
            found[code] = row
    return found


def test_every_reason_is_listed_with_its_stage_meaning_and_what_to_do() -> None:
    page, codes = listed(), made()
    assert len(codes) > 100
    assert sorted(set(codes) - set(page)) == []
    for code, stages in codes.items():
        _, _, stage, meaning, hint, _ = page[code].split("|")
        assert stage.strip() and meaning.strip() and hint.strip()
        for one in stages - {""}:
            assert one == stage.strip() or f"stage `{one}`" in meaning.lower(), f"{code} is of stage {one}"


def test_no_reason_is_listed_that_nothing_gives() -> None:
    assert sorted(set(listed()) - set(made())) == []
