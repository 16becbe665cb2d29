"""Configuration, wiring, supervisor, workers, command line."""
