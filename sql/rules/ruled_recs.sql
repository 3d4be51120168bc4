-- One row per recommendation of the table at $recs, its ids as trimmed text, as those of rule tables are.
select
    trim(cast(user_id as varchar), $blanks) as user_id,
    trim(cast(item_id as varchar), $blanks) as item_id,
    rank,
    source
from read_parquet($recs, hive_partitioning = false)
