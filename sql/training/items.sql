-- One row per item of the histories, most frequent first; items of equal frequency in the order of ids.
select
    item_id,
    count(*) as n_events
from (select unnest(item_ids) as item_id from read_parquet($path, hive_partitioning = false)) as events
group by item_id
order by n_events desc, item_id asc
