"""The pluggy manager: loads what is enabled, validates it against `hookspecs`, and calls per-message hooks one by one."""
