"""The engine room: the pinned engine and embedded store, how they are obtained, started and run."""
