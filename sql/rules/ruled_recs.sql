-- One row per recommendation of the table at $recs, with ids as trimmed text, like those of rule tables.
select
    trim(cast(user_id as varchar), $blanks) as user_id,
    trim(cast(item_id as varchar), $blanks) as item_id,
    rank,
    source
from read_parquet($recs, hive_partitioning = false)
