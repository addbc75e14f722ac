"""The names of the software on a homeserver: its settings, paths, units and versions. Data alone.

Each name is written down once, here, and read by what renders configuration (`renderer`), what checks it (`lint`) and
what prints the steps between two of them (`runbook`). They must agree: a runbook that stops another unit than the one
that was rendered loses media.
"""
