"""Paths and revocation (RFC 5280, RFC 8550): pure decisions at an instant, with each reason and the evidence that is missing."""
