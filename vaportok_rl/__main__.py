"""``python -m vaportok_rl`` is the ``vaportok-rl`` command."""

from vaportok_rl.cli.main import main

if __name__ == "__main__":
    main()
