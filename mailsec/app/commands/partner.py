"""`mailsec partner`: what is agreed with correspondents, for an address, a domain, or everybody.

Rules of the configuration decide first; what they leave open is decided here (docs/settings.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import UsageError
from mailsec.model.partner import PARTNER_SETTINGS

__all__ = ["list_partners", "remove", "set_partner", "show"]


@json_option
@click.command()
@click.argument("partner", metavar="ADDRESS|DOMAIN|default")
@click.argument("settings", metavar="NAME=VALUE...", nargs=-1, required=True)
@database_options
@click.pass_obj
def set_partner(output: Output, partner: str, settings: tuple[str, ...], database: DatabaseChoice) -> None:
    """Agree on settings with a correspondent: encrypt=required, profile=edi-energy … NAME= takes one back.

    \b
    sign, encrypt       required, if-possible or never
    form                detached or opaque
    wrap                sign, or triple: signed once more around what is encrypted
    header-protection   no, sign, baseline or shy (RFC 9788)
    compress            yes or no
    encrypt-to-sender   yes or no
    hold                yes: what cannot be done is held for a person, not refused
    profile             the algorithms: default, compatible, pss, edi-energy …
    """
    from mailsec.app.databases import open_database
    from mailsec.store.partners import Partners, partner_key

    key, values = partner_key(partner), _read(settings)
    with open_database(output, database) as opened:
        agreed = Partners(opened).set(key, values)
    output.result({"partner": key or "default", "settings": dict(agreed)}, f"{key or 'default'}: {_words(agreed) or 'nothing is agreed'}")


@json_option
@click.command()
@click.argument("partner", metavar="ADDRESS|DOMAIN|default")
@database_options
@click.pass_obj
def show(output: Output, partner: str, database: DatabaseChoice) -> None:
    """Show what holds for a correspondent, and which level gave each value: the address, its domain, or the default."""
    from mailsec.app.databases import open_database
    from mailsec.model.address import Address
    from mailsec.store.partners import DEFAULT, Partners, partner_key

    key = partner_key(partner)
    with open_database(output, database) as opened:
        if not key or key.startswith("@"):
            levels = [key, ""] if key else [""]
            agreed = Partners(opened).all()
            values = {
                name: (agreed[level or DEFAULT][name], level or DEFAULT)
                for level in reversed(levels)
                for name in agreed.get(level or DEFAULT, {})
            }
        else:
            found = Partners(opened).settings(Address.parse(key))
            values = {name: (getattr(found, name.replace("-", "_")), level) for name, level in found.levels.items()}
    rows = [[name, values[name][0], values[name][1]] for name in PARTNER_SETTINGS if name in values]
    output.result(
        {"partner": key or DEFAULT, "settings": {name: {"value": value, "level": level} for name, value, level in rows}},
        lambda: output.table(
            ["setting", "value", "from"],
            rows,
            empty=f"Nothing is agreed with {key or 'anybody'}: mailsec partner set {partner} encrypt=required",
        ),
    )


@json_option
@click.command()
@database_options
@click.pass_obj
def list_partners(output: Output, database: DatabaseChoice) -> None:
    """List the correspondents with whom something is agreed."""
    from mailsec.app.databases import open_database
    from mailsec.store.partners import Partners

    with open_database(output, database) as opened:
        agreed = Partners(opened).all()
    output.result(
        {"partners": [{"partner": partner, "settings": dict(values)} for partner, values in agreed.items()]},
        lambda: output.table(
            ["partner", "settings"],
            [[partner, _words(values)] for partner, values in agreed.items()],
            empty="Nothing is agreed with anybody yet: mailsec partner set example.net encrypt=required",
        ),
    )


@json_option
@click.command()
@click.argument("partner", metavar="ADDRESS|DOMAIN|default")
@database_options
@click.pass_obj
def remove(output: Output, partner: str, database: DatabaseChoice) -> None:
    """Forget all that is agreed with a correspondent."""
    from mailsec.app.databases import open_database
    from mailsec.store.partners import Partners, partner_key

    key = partner_key(partner)
    with open_database(output, database) as opened:
        gone = Partners(opened).remove(key)
    output.result({"partner": key or "default", "removed": gone}, f"{key or 'default'}: nothing is agreed any more")


def _read(settings: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, each checked against what there is."""
    values: dict[str, str] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip().lower().replace("_", "-")
        if not equals:
            raise UsageError(f"not a setting: {text[:80]!r}", hint="write NAME=VALUE, as in encrypt=required")
        if name not in PARTNER_SETTINGS:
            raise UsageError(f"there is no setting {name[:80]!r}", hint=_meant(name, PARTNER_SETTINGS))
        words = PARTNER_SETTINGS[name] or _profiles()
        value = value.strip().lower()
        if value and value not in words:
            raise UsageError(f"{name} cannot be {value[:80]!r}", hint=_meant(value, words))
        values[name] = value
    return values


def _profiles() -> tuple[str, ...]:
    from mailsec.algorithms.profiles import PROFILES

    return tuple(name for name, profile in PROFILES.items() if not profile.allow_legacy)


def _meant(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}? it is one of: {', '.join(known)}" if near else f"it is one of: {', '.join(known)}"


def _words(values: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
