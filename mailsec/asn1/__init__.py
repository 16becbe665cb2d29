"""Bounded reading of BER and DER, and writing of DER (X.690), over octets that need not be in memory.

Invariant: whatever the octets are, reading ends in linear time with an element or an `Asn1Error` or `LimitExceeded`; nothing else is raised.
"""
