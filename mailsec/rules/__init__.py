"""Conditions over frozen facts; the first rule that matches wins, for each concern."""
