"""The embedded engine: jobs as processes of this host, each beside its own shepherd."""

from dusuan.engines.local.engine import LocalEngine, Settings

__all__ = ["LocalEngine", "Settings"]
