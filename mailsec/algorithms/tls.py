"""TLS by name: cipher suites as IANA, OpenSSL and NSS call them, lists as OpenSSL and mod_nss write them, and the profiles.

The one invariant: no list, however it is written, brings in a suite without encryption, without authentication, or with a broken cipher:
what `_NEVER` says stands behind every list that goes to the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mailsec.errors import ConfigurationError
from mailsec.model.tls import TlsPolicy

__all__ = ["GROUPS", "PROFILES", "SUITES", "Suite", "TlsProfile", "TlsTerms", "read_ciphers", "read_protocols", "terms_of"]

_NEVER: Final = "!aNULL:!eNULL:!EXPORT:!DES:!3DES:!RC4:!IDEA:!SEED:!MD5:!PSK:!SRP:!DSS:!kRSAPSK:!kDHEPSK:!kECDHEPSK"
"""Behind every list: "!" cannot be taken back by what stands before it."""

_TLS_1_2, _TLS_1_3 = "TLSv1.2", "TLSv1.3"


@dataclass(frozen=True, slots=True)
class Suite:
    """One cipher suite by its three names."""

    nss: str
    """As NSSCipherSuite calls it."""
    openssl: str
    iana: str
    weakness: str = ""
    """Why no profile holds it; "never: …" where it is not used even if a list names it."""

    @property
    def tls13(self) -> bool:
        return self.iana == self.openssl


_NO_FORWARD = "no forward secrecy"
_CBC = "CBC (Lucky 13)"

SUITES: Final[tuple[Suite, ...]] = tuple(
    Suite(*row)
    for row in (
        # RFC 8446 §B.4: TLS 1.3.
        ("aes_256_gcm_sha_384", "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("chacha20_poly1305_sha_256", "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
        ("aes_128_gcm_sha_256", "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        # RFC 9325 §4.2: TLS 1.2 with forward secrecy and authenticated encryption.
        ("ecdhe_ecdsa_aes_128_gcm_sha_256", "ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ("ecdhe_rsa_aes_128_gcm_sha_256", "ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("ecdhe_ecdsa_aes_256_gcm_sha_384", "ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ("ecdhe_rsa_aes_256_gcm_sha_384", "ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("ecdhe_ecdsa_chacha20_poly1305_sha_256", "ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("ecdhe_rsa_chacha20_poly1305_sha_256", "ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("dhe_rsa_aes_128_gcm_sha_256", "DHE-RSA-AES128-GCM-SHA256", "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("dhe_rsa_aes_256_gcm_sha_384", "DHE-RSA-AES256-GCM-SHA384", "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("dhe_rsa_chacha20_poly1305_sha_256", "DHE-RSA-CHACHA20-POLY1305", "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        # For peers of long ago, where a list names them.
        ("ecdhe_ecdsa_aes_128_sha", "ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", _CBC),
        ("ecdhe_rsa_aes_128_sha", "ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", _CBC),
        ("ecdhe_ecdsa_aes_256_sha", "ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", _CBC),
        ("ecdhe_rsa_aes_256_sha", "ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", _CBC),
        ("ecdhe_ecdsa_aes_128_sha_256", "ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", _CBC),
        ("ecdhe_rsa_aes_128_sha_256", "ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", _CBC),
        ("ecdhe_ecdsa_aes_256_sha_384", "ECDHE-ECDSA-AES256-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", _CBC),
        ("ecdhe_rsa_aes_256_sha_384", "ECDHE-RSA-AES256-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", _CBC),
        ("dhe_rsa_aes_128_sha", "DHE-RSA-AES128-SHA", "TLS_DHE_RSA_WITH_AES_128_CBC_SHA", _CBC),
        ("dhe_rsa_aes_256_sha", "DHE-RSA-AES256-SHA", "TLS_DHE_RSA_WITH_AES_256_CBC_SHA", _CBC),
        ("dhe_rsa_aes_128_sha256", "DHE-RSA-AES128-SHA256", "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256", _CBC),
        ("dhe_rsa_aes_256_sha256", "DHE-RSA-AES256-SHA256", "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256", _CBC),
        ("rsa_aes_128_gcm_sha_256", "AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256", _NO_FORWARD),
        ("rsa_aes_256_gcm_sha_384", "AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384", _NO_FORWARD),
        ("rsa_aes_128_sha", "AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", _NO_FORWARD),
        ("rsa_aes_256_sha", "AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA", _NO_FORWARD),
        ("aes_128_sha_256", "AES128-SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA256", _NO_FORWARD),
        ("aes_256_sha_256", "AES256-SHA256", "TLS_RSA_WITH_AES_256_CBC_SHA256", _NO_FORWARD),
        ("camelia_128_sha", "CAMELLIA128-SHA", "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA", _NO_FORWARD),
        ("camelia_256_sha", "CAMELLIA256-SHA", "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA", _NO_FORWARD),
        # RFC 7465, RFC 9325 §4.1: not to be negotiated by anybody.
        ("rsa_null_md5", "NULL-MD5", "TLS_RSA_WITH_NULL_MD5", "never: no encryption"),
        ("rsa_null_sha", "NULL-SHA", "TLS_RSA_WITH_NULL_SHA", "never: no encryption"),
        ("null_sha_256", "NULL-SHA256", "TLS_RSA_WITH_NULL_SHA256", "never: no encryption"),
        ("ecdhe_rsa_null", "ECDHE-RSA-NULL-SHA", "TLS_ECDHE_RSA_WITH_NULL_SHA", "never: no encryption"),
        ("ecdhe_ecdsa_null_sha", "ECDHE-ECDSA-NULL-SHA", "TLS_ECDHE_ECDSA_WITH_NULL_SHA", "never: no encryption"),
        ("rsa_rc4_128_md5", "RC4-MD5", "TLS_RSA_WITH_RC4_128_MD5", "never: RC4"),
        ("rsa_rc4_128_sha", "RC4-SHA", "TLS_RSA_WITH_RC4_128_SHA", "never: RC4"),
        ("ecdhe_rsa_rc4_128_sha", "ECDHE-RSA-RC4-SHA", "TLS_ECDHE_RSA_WITH_RC4_128_SHA", "never: RC4"),
        ("ecdhe_ecdsa_rc4_128_sha", "ECDHE-ECDSA-RC4-SHA", "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", "never: RC4"),
        ("rsa_rc4_40_md5", "EXP-RC4-MD5", "TLS_RSA_EXPORT_WITH_RC4_40_MD5", "never: 40 bits"),
        ("rsa_rc2_40_md5", "EXP-RC2-CBC-MD5", "TLS_RSA_EXPORT_WITH_RC2_CBC_40_MD5", "never: 40 bits"),
        ("rsa_des_sha", "DES-CBC-SHA", "TLS_RSA_WITH_DES_CBC_SHA", "never: DES"),
        ("rsa_des_56_sha", "EXP1024-DES-CBC-SHA", "TLS_RSA_EXPORT1024_WITH_DES_CBC_SHA", "never: DES"),
        ("rsa_rc4_56_sha", "EXP1024-RC4-SHA", "TLS_RSA_EXPORT1024_WITH_RC4_56_SHA", "never: RC4"),
        ("fips_des_sha", "FIPS-DES-CBC-SHA", "SSL_RSA_FIPS_WITH_DES_CBC_SHA", "never: DES"),
        ("fips_3des_sha", "FIPS-DES-CBC3-SHA", "SSL_RSA_FIPS_WITH_3DES_EDE_CBC_SHA", "never: 64-bit blocks (Sweet32)"),
        ("rsa_3des_sha", "DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "never: 64-bit blocks (Sweet32)"),
        ("ecdhe_rsa_3des_sha", "ECDHE-RSA-DES-CBC3-SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", "never: 64-bit blocks (Sweet32)"),
        ("ecdhe_ecdsa_3des_sha", "ECDHE-ECDSA-DES-CBC3-SHA", "TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA", "never: 64-bit blocks (Sweet32)"),
        ("dhe_rsa_3des_sha", "DHE-RSA-DES-CBC3-SHA", "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA", "never: 64-bit blocks (Sweet32)"),
    )
)
"""The names of mod_nss and of NSS's tools, in the order in which a profile prefers them."""

_BY_NAME: Final[Mapping[str, Suite]] = {
    name: suite for suite in SUITES for name in (suite.nss, suite.nss.upper(), suite.openssl, suite.iana)
} | {
    # Spellings of NSS's other tables and of mod_nss's page.
    alias: next(suite for suite in SUITES if suite.nss == name)
    for alias, name in {
        "rsa_aes_128_cbc_sha_256": "aes_128_sha_256",
        "rsa_aes_256_cbc_sha_256": "aes_256_sha_256",
        "ecdhe_rsa_aes_128_cbc_sha_256": "ecdhe_rsa_aes_128_sha_256",
        "ecdhe_ecdsa_aes_128_cbc_sha_256": "ecdhe_ecdsa_aes_128_sha_256",
        "dhe_rsa_aes_128_cbc_sha_256": "dhe_rsa_aes_128_sha256",
        "dhe_rsa_aes_256_cbc_sha_256": "dhe_rsa_aes_256_sha256",
        "rsa_null_sha_256": "null_sha_256",
        "echde_rsa_null": "ecdhe_rsa_null",
        "camellia_128_sha": "camelia_128_sha",
        "camellia_256_sha": "camelia_256_sha",
    }.items()
}

GROUPS: Final[tuple[str, ...]] = ("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024", "X25519", "P-256", "X448", "P-384", "P-521")
"""Key exchange groups by their OpenSSL names. The first three are hybrids of a curve and ML-KEM (FIPS 203)."""


@dataclass(frozen=True, slots=True)
class TlsProfile:
    """A named set of versions, suites and groups."""

    name: str
    protocols: tuple[str, str]
    suites: tuple[Suite, ...]
    groups: tuple[str, ...]
    """Those that the library does not have are left out."""


def _suites(*, tls12: bool = True, chacha: bool = True) -> tuple[Suite, ...]:
    return tuple(suite for suite in SUITES if not suite.weakness and (tls12 or suite.tls13) and (chacha or "CHACHA20" not in suite.openssl))


PROFILES: Final[Mapping[str, TlsProfile]] = {
    profile.name: profile
    for profile in (
        TlsProfile("modern", (_TLS_1_3, _TLS_1_3), _suites(tls12=False), ("X25519MLKEM768", "X25519", "P-256", "P-384")),
        # RFC 9325 §3.1.1, §4.2.
        TlsProfile("intermediate", (_TLS_1_2, _TLS_1_3), _suites(), ("X25519MLKEM768", "X25519", "P-256", "P-384")),
        # SP 800-52r2 §3.3.1, SP 800-186: the algorithms only; this is no validated module.
        TlsProfile(
            "fips-algorithms", (_TLS_1_2, _TLS_1_3), _suites(chacha=False), ("SecP256r1MLKEM768", "P-256", "P-384", "P-521")
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TlsTerms:
    """A policy with everything resolved, as the library takes it."""

    minimum: str
    maximum: str
    ciphers: str
    """For TLS 1.2."""
    suites: tuple[str, ...]
    """For TLS 1.3."""
    groups: tuple[str, ...]


def terms_of(policy: TlsPolicy) -> TlsTerms:
    """What `policy` comes to; raise ConfigurationError for a name that means nothing, or that is never used."""
    profile = PROFILES.get(policy.profile)
    if profile is None:
        raise ConfigurationError(f"there is no TLS profile {policy.profile!r}", hint="one of " + ", ".join(PROFILES))
    minimum, maximum = read_protocols(policy.protocols) if policy.protocols else profile.protocols
    older = ":".join(suite.openssl for suite in profile.suites if not suite.tls13)
    newer = tuple(suite.openssl for suite in profile.suites if suite.tls13)
    if policy.ciphers:
        named_older, named_newer = read_ciphers(policy.ciphers)
        older, newer = named_older or older, named_newer or newer
    if not older:
        # The library wants a list even where TLS 1.2 is not spoken.
        older = ":".join(suite.openssl for suite in _suites() if not suite.tls13)
    for group in policy.groups:
        if group not in GROUPS:
            raise ConfigurationError(f"there is no key exchange group {group!r}", hint="one of " + ", ".join(GROUPS))
    return TlsTerms(minimum, maximum, f"{older}:{_NEVER}", newer, policy.groups or profile.groups)


def read_protocols(names: tuple[str, ...]) -> tuple[str, str]:
    """The lowest and the highest version that `names` hold, as NSSProtocol means them; raise ConfigurationError."""
    wanted = set()
    for name in names:
        word = name.strip().lower()
        if word == "all":
            wanted |= {_TLS_1_2, _TLS_1_3}
        elif word in ("tlsv1.2", "tlsv1.3"):
            wanted.add(word.replace("tlsv", "TLSv"))
        elif word in ("sslv2", "sslv3", "tlsv1", "tlsv1.0", "tlsv1.1"):
            # RFC 8996, RFC 7568, RFC 6176: not used by anybody.
            raise ConfigurationError(f"{name} is broken, and not spoken here", hint='protocols = ["TLSv1.2", "TLSv1.3"]')
        else:
            raise ConfigurationError(f"there is no protocol {name!r}", hint='protocols = ["TLSv1.2", "TLSv1.3"]')
    return min(wanted), max(wanted)


def read_ciphers(text: str) -> tuple[str, tuple[str, ...]]:
    """A cipher list as the library takes it: for TLS 1.2, and the suites of TLS 1.3; either may be empty. Raise ConfigurationError.

    With commas it is a list of NSS names ("+name", "-name"; nothing is in it at first), with colons one of OpenSSL's; one name alone may
    be either. OpenSSL's words (HIGH, kEECDH, "!") go to the library as they are.
    """
    text = text.strip()
    if "," in text or text.lstrip("+-").lower() in _BY_NAME:
        return _nss_list(text)
    older: list[str] = []
    newer: list[str] = []
    for word in text.split(":"):
        word = word.strip()
        if word.startswith("@"):
            # The level decides which keys are too short: nobody lowers it by the way.
            raise ConfigurationError(f"{word!r} cannot be set in a list of ciphers", hint="leave it out")
        suite = _BY_NAME.get(word)
        if suite is not None:
            _demand_usable(suite, word)
            (newer if suite.tls13 else older).append(suite.openssl)
        elif word:
            older.append(word)
    return ":".join(older), tuple(newer)


def _nss_list(text: str) -> tuple[str, tuple[str, ...]]:
    chosen: dict[str, Suite] = {}
    for item in text.split(","):
        item = item.strip()
        if not item:
            continue
        sign, name = (item[0], item[1:]) if item[0] in "+-" else ("+", item)
        suite = _BY_NAME.get(name) or _BY_NAME.get(name.lower())
        if suite is None:
            raise ConfigurationError(f"there is no cipher {name!r}", hint="docs/from-nss.md lists them; OpenSSL's lists have colons")
        if sign == "-":
            chosen.pop(suite.nss, None)
        else:
            _demand_usable(suite, name)
            chosen[suite.nss] = suite
    if not chosen:
        raise ConfigurationError("the list of ciphers is empty", hint="a list of NSS names begins with nothing: +name adds one")
    # As in NSS, the order of the list means nothing: the table's does.
    ordered = [suite for suite in SUITES if suite.nss in chosen]
    return ":".join(suite.openssl for suite in ordered if not suite.tls13), tuple(suite.openssl for suite in ordered if suite.tls13)


def _demand_usable(suite: Suite, name: str) -> None:
    if suite.weakness.startswith("never"):
        raise ConfigurationError(
            f"{name} is not used, whatever a list says ({suite.weakness.removeprefix('never: ')})", hint="leave it out"
        )
