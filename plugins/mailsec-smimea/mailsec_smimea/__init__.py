"""S/MIME certificates in DNS: SMIMEA records (RFC 8162), looked up where DNSSEC vouches for them, and written for one's own zone."""
