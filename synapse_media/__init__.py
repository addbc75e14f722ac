"""Object storage for a Matrix homeserver's media: provisioned, proved, configured."""

__version__ = "0.1.0"
