"""PKCS#11 modules that check signatures for mailsec, and are believed as far as they can be checked."""
