"""The media that a homeserver has already: copied to a store, compared with it, freed from the disk, and restored."""
