"""Conditions over facts about a message, and what they choose: `[[rule]]` tables, compiled once."""
