"""The pinned Pulumi engine and the embedded store: how they are obtained, started and run."""
