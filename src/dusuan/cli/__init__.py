"""The command `dusuan`: a thin client of the API."""

from dusuan.cli.launcher import Launcher, LauncherError
from dusuan.cli.main import build

__all__ = ["Launcher", "LauncherError", "build"]
