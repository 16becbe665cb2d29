"""What the objects look like that rooms and plugins hand each other: `typing.Protocol` classes, nothing that runs (but `run_now`).

Rules for all of them: instants are aware `datetime`s in UTC; certificates are DER; addresses are `model.address.Address`; an
object that may touch a disk, a network or a token has async methods; "there is none" is an empty result, "cannot be said now"
is an exception with `.temporary`.
"""

from __future__ import annotations

from mailsec.interfaces.commands import CommandOutput
from mailsec.interfaces.evidence import Evidence, EvidenceRequest, RevocationSource
from mailsec.interfaces.gateway import Gateway, Outcome
from mailsec.interfaces.keys import CryptoBackend, Hash, KeyHandle, KeyStore
from mailsec.interfaces.named_paths import AnyPath, File, NamedPath, SecretFile
from mailsec.interfaces.people import (
    PEER,
    Authenticator,
    CertificateDirectory,
    Credentials,
    FoundCertificate,
    RecipientDirectory,
    ScramAuthenticator,
    ScramVerifier,
)
from mailsec.interfaces.protocols import Conversation, ProtocolCore, ReactorService, TcpService
from mailsec.interfaces.runtime import DnsAnswer, Runtime, Scratch, Signal, Task, Work, run_now
from mailsec.interfaces.storage import CertificateDatabase, SealKeys, Spool
from mailsec.interfaces.tokens import TokenHost

__all__ = [
    "PEER",
    "AnyPath",
    "Authenticator",
    "CertificateDatabase",
    "CertificateDirectory",
    "CommandOutput",
    "Conversation",
    "Credentials",
    "CryptoBackend",
    "DnsAnswer",
    "Evidence",
    "EvidenceRequest",
    "File",
    "FoundCertificate",
    "Gateway",
    "Hash",
    "KeyHandle",
    "KeyStore",
    "NamedPath",
    "Outcome",
    "ProtocolCore",
    "ReactorService",
    "RecipientDirectory",
    "RevocationSource",
    "Runtime",
    "ScramAuthenticator",
    "ScramVerifier",
    "Scratch",
    "SealKeys",
    "SecretFile",
    "Signal",
    "Spool",
    "Task",
    "TcpService",
    "TokenHost",
    "Work",
    "run_now",
]
