"""``python -m dragonfly_cli`` is the same program as ``dragonfly``."""

from dragonfly_cli.main import main

if __name__ == "__main__":
    main()
