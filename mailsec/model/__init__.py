"""Frozen values that flow through the house, the grammar of addresses, and the table of limits.

Nothing here does input or output, and nothing here decides: values only (`docs/flow.md` shows their way).
"""
