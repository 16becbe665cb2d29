"""Where a configuration asks for the profile "fips-algorithms", and what that asks of the database besides: keys under a pass phrase."""

from __future__ import annotations

from mailsec.app.config.lines import Path as Place
from mailsec.app.config.load import Configuration

__all__ = ["PROFILE", "places_that_want_fips"]

PROFILE = "fips-algorithms"


def places_that_want_fips(configuration: Configuration) -> list[Place]:
    """Every setting that names the profile, in the order of the file's sections."""
    found: list[Place] = [("tls", "profile")] if configuration.tls.profile == PROFILE else []
    found += [("listener", index, "tls_profile") for index, each in enumerate(configuration.listeners) if each.tls_profile == PROFILE]
    found += [("rule", index, "profile") for index, each in enumerate(configuration.rules) if each.profile == PROFILE]
    return found
