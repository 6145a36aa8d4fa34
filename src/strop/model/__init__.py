"""Models: loading, the shared-prefix packed forward, and the chunked log-prob head."""
