"""python -m resnetkit."""

from resnetkit.cli import main

if __name__ == "__main__":
    main()
