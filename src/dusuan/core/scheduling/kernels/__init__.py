"""The compiled rules. Imported only when a round is due: importing them imports numba."""
