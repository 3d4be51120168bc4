-- One row per item of the histories at $path.
select distinct unnest(item_ids) as item_id
from read_parquet($path, hive_partitioning = false)
