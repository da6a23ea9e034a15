"""`python -m bench.accuracy` measures every estimate and writes docs/accuracy.md."""

from bench.accuracy.report import main

main()
