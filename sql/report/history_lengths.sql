-- One row per band of lengths of the histories at $sequences: its shortest possible length and its number of users. A
-- band ends before twice its shortest length.
select
    if(len(item_ids) = 0, 0, cast(2 ** floor(log2(greatest(len(item_ids), 1))) as bigint)) as shortest,
    count(*) as users
from read_parquet($sequences, hive_partitioning = false)
group by shortest
order by shortest
