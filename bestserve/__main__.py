"""`python -m bestserve`."""

from bestserve.cli import main

main()
