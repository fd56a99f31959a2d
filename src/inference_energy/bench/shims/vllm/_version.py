"""The version whose API the bench serves, marked as simulated."""

__version__ = "0.25.1+simulated"
__commit_id__ = None
