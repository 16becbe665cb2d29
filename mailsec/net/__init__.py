"""Twisted glue: listeners, the driver of sans-IO cores, TLS, the runtime, the relay."""
