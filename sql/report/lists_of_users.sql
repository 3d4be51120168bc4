-- One row per recommendation at $recs of the users $users, up to rank $k.
select *
from read_parquet($recs, hive_partitioning = false)
where list_contains($users, user_id) and rank <= $k
order by user_id, rank
