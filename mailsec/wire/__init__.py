"""Mail protocols as sans-IO state machines: octets and answers in, requests out (`model.requests`)."""
