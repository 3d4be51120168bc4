-- One row: the first and the last moment of the histories, in Unix seconds; null where no history holds an event.
select
    min(list_min(timestamps)) as oldest,
    max(list_max(timestamps)) as newest
from read_parquet($path, hive_partitioning = false)
