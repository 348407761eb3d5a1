"""`python -m prefroute` is the `prefroute` command."""

from prefroute.cli import main

main()
