"""HTTP translation of the app's verbs."""

from dusuan.api.hooks import Hooks
from dusuan.api.server import create_app
from dusuan.api.wire import server_options

__all__ = ["Hooks", "create_app", "server_options"]
