"""The build-sequences job: from rows of a log to one history per user, by DuckDB. Start at build.build_sequences."""
