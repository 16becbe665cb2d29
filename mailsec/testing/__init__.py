"""The kit for plugin authors: a fake runtime, makers of messages and transactions, a player of dialogs."""
