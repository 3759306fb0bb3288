"""``python -m plumbline``: the command line."""

from plumbline.commands.app import main

if __name__ == "__main__":
    main()
