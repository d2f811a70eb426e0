"""`python -m continuum.cli`: the command line where no script `continuum` is installed."""

from continuum.cli import main

if __name__ == "__main__":
    main()
