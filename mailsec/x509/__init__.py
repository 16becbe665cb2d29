"""DER to a frozen `Certificate` that never fails on odd ones: what cannot be read is said in `Certificate.problems` (RFC 5280 §4)."""
