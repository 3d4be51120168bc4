-- One row per recommendation of the shards at $shards, in the order of a table that is not made in shards.
select * exclude (position)
from read_parquet($shards, hive_partitioning = false)
order by position, rank
