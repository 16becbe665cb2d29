"""Cryptographic Message Syntax (RFC 5652): structures over octets, signing and verifying; integrity only, no trust."""
