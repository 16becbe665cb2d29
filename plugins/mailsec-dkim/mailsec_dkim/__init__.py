"""DKIM for mailsec: what arrives is verified before anything is opened or taken off, what leaves is signed after S/MIME (RFC 6376)."""
