-- One row: the first and last time of the histories, in Unix seconds; null if they have no events.
-- Parameters: path, a sequences table.
select
    min(list_min(timestamps)) as oldest,
    max(list_max(timestamps)) as newest
from read_parquet($path, hive_partitioning = false)
