-- One row: the number of the lists at $path and of the items in them, the lengths of the
-- lists, and the range of the scores. Parameters: owner_column, item_column.
with listed as (
    select
        columns([$owner_column]) as owner_id,
        columns([$item_column]) as item_id,
        score
    from read_parquet($path, hive_partitioning = false)
),

lengths as (
    select count(*) as n_items
    from listed
    group by owner_id
)

select
    count(distinct owner_id) as lists,
    count(distinct item_id) as items,
    (select min(lengths.n_items) from lengths) as shortest_list,
    (select median(lengths.n_items) from lengths) as median_list,
    (select max(lengths.n_items) from lengths) as longest_list,
    min(score) as lowest_score,
    max(score) as highest_score
from listed
