-- One row: the number of users, events and items of the histories at $path, the lengths of the histories, and the first
-- and last time.
with histories as (
    select
        len(item_ids) as n_events,
        list_min(timestamps) as oldest,
        list_max(timestamps) as newest
    from read_parquet($path, hive_partitioning = false)
),

items as (
    select count(distinct item_ids.item_id) as n_items
    from (
        select unnest(item_ids) as item_id
        from read_parquet($path, hive_partitioning = false)
    ) as item_ids
)

select
    count(*) as users,
    cast(sum(histories.n_events) as bigint) as events,
    any_value(items.n_items) as items,
    min(histories.n_events) as shortest_history,
    median(histories.n_events) as median_history,
    max(histories.n_events) as longest_history,
    cast(make_timestamp(1000000 * min(histories.oldest)) as varchar) as oldest,
    cast(make_timestamp(1000000 * max(histories.newest)) as varchar) as newest
from histories
cross join items
