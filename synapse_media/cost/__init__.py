"""Compare the providers of the catalog by cost and by other criteria, without Pulumi, account or network.

prices (offers from the catalog) → model (bills, rankings, break-even points) → study → table, pictures, report, docs.
"""
