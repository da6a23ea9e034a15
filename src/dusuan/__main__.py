"""`python -m dusuan` is the `dusuan` command."""

from dusuan.wiring import main

main()
