-- One row per recommendation of the table at $recs, ordered by user and rank.
select *
from read_parquet($recs, hive_partitioning = false)
order by user_id, rank
