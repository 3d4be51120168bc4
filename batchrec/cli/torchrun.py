"""Whether this process is alone, or one of torchrun's."""

import os


def is_one_of_several() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_process() -> bool:
    """Whether this is the one of torchrun's processes that speaks for all, or alone."""
    return not is_one_of_several() or os.environ["RANK"] == "0"
