"""``python -m streamsvc``."""

from streamsvc.cli import main

main()
