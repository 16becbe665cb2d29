"""What both paths work with, in one value: settings, plugins, keys, evidence, the S/MIME engine."""

from __future__ import annotations

from dataclasses import dataclass

from mailsec.gateway.correspondents import Correspondents, PartnerBook
from mailsec.gateway.engine import Engine
from mailsec.gateway.evidence import EvidenceDesk
from mailsec.gateway.keyring import KeyRing
from mailsec.interfaces import Runtime, SealKeys
from mailsec.model.limits import Limits
from mailsec.model.settings import GatewaySettings
from mailsec.plugins import PluginManager

__all__ = ["Tools"]


@dataclass(frozen=True, slots=True)
class Tools:
    """Made once, at start-up."""

    settings: GatewaySettings
    limits: Limits
    runtime: Runtime
    plugins: PluginManager
    engine: Engine
    keys: KeyRing
    evidence: EvidenceDesk
    correspondents: Correspondents
    partners: PartnerBook | None = None
    seals: SealKeys | None = None
