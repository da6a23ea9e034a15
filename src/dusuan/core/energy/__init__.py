"""Energy of a run, and what it emits."""
