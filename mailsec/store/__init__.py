"""The certificate database and the spool."""
