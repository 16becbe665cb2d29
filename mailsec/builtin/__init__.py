"""Default plugins: what mailsec does by itself, through the same hooks as everybody."""
