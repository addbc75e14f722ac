"""What a change means for the store: what was last applied, what the stack file wants, and what `allow` names now.

Whether media can be lost or access cut is a question about the store, and is decided here from a record of it. The
steps that a preview announces (`synapse_media.guards.changes`) are looked at afterwards, as a second net.
"""
