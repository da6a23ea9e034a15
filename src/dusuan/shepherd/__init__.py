"""The process beside a job: starts it, meters it, stops it. Standard library only."""
