"""`python -m graphrec.cli` is `graphrec`."""

from graphrec.cli.main import main

main()
