"""One module per schema number; see the rule in `mailsec.store.migrations`."""
