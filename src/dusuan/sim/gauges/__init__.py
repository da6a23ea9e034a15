"""What is read off a log of decisions, compiled. Imported only when a simulation runs."""
