"""What a store would cost at each provider of the catalog, and how else they differ: no Pulumi, no account, no network.

prices (offers from the catalog) → model (bills, comparison, crossings) → table, pictures, report, docs.
"""
