"""Whether this process is one of several that torchrun has started."""

import os


def is_one_of_several() -> bool:
    """Return whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_process() -> bool:
    """Return whether this process writes the output: the first of torchrun's, or the only one."""
    return not is_one_of_several() or os.environ["RANK"] == "0"
