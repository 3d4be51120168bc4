"""The batchrec program as a file, which spark-submit takes."""

from batchrec.cli import main

if __name__ == "__main__":
    main()
