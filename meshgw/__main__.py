"""`python -m meshgw`."""

from meshgw.cli.main import main

main()
