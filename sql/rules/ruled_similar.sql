-- One row per row of the table of similar items at $similar, as rows of recommendations are judged: the item in place
-- of the user, with ids as trimmed text, like those of rule tables.
select
    trim(cast(item_id as varchar), $blanks) as user_id,
    trim(cast(similar_item_id as varchar), $blanks) as item_id,
    rank
from read_parquet($similar, hive_partitioning = false)
