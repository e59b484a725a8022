"""`python -m dts` is `dts`."""

from dts.cli.main import main

if __name__ == "__main__":
    main()
