-- One row per recommendation at $recs of the user $user, an id as text, up to rank $k: its rank, item, score and
-- source.
select
    rank,
    item_id,
    score,
    source
from read_parquet($recs, hive_partitioning = false)
where cast(user_id as varchar) = $user and rank <= $k
order by rank
