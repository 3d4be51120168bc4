"""The inspect job: say what a file or folder is, and whether it is whole. Start at inspect.inspect."""
