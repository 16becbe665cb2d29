"""PKCS#11 modules: loader, sessions, login, what lies on tokens. Blocking; imported by `app` only."""
