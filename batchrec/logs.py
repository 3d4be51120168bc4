from contextlib import contextmanager


@contextmanager
def context(**k):
    yield
