"""PKCS#11 modules: loader, sessions, locks. Blocking; imported by `app` only."""
