"""A function that needs memory, in a module that a new process imports in no time."""


def hold(mib: int) -> int:
    """Hold some memory for a moment; return its bytes."""
    return len(bytearray(b"x") * (mib << 20))
