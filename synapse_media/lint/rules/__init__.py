"""The rules, one module a subject; each puts its own on the list in `findings.RULES`."""

from importlib import import_module

for _subject in ("files", "store", "synapse", "playbook", "media_repo"):
    import_module(f"{__name__}.{_subject}")
