"""The Pulumi plugin `s3store`: what no vendor's plugin does.

One resource family a module; `protocol` alone knows gRPC.
"""
