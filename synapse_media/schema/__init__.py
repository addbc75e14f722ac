"""The resources of the plugin `s3store`, each described once.

What the plugin reads and writes, the classes that the components use and the Pulumi package schema follow from here.
"""
