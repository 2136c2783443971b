"""`python -m narwhal` is the command `narwhal`."""

from narwhal.cli import main

main()
