"""Tables on disk: schemas, queries, sealed Parquet, ids, the end of the log."""
