"""The simulator's event loop, compiled. Imported only when a simulation runs."""
