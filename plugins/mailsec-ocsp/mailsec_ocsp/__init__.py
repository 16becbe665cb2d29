"""An OCSP responder (RFC 6960, RFC 9919) over HTTP for the authorities of mailsec's own database."""
