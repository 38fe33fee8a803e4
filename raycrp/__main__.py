"""``python -m raycrp``: what ``ray job submit`` starts."""

from raycrp.cli import main

if __name__ == "__main__":
    main()
