-- One row per user in held_out: the rank of the held-out item by number of events, among the items that are not in the
-- user's history. Held-out events do not count. Items with equally many events are in the order of the vocabulary.
with events as (
    select
        unnest(item_ids) as item_id,
        1 as n
    from read_parquet($path, hive_partitioning = false)
    union all
    select
        item_id,
        -1 as n
    from held_out
),

popular as (
    select
        item_id,
        row_number() over (order by sum(n) desc, sum(n) filter (where n > 0) desc, item_id asc) as place
    from events
    group by item_id
),

seen as (
    select distinct
        user_id,
        unnest(item_ids) as item_id
    from held_out
),

seen_places as (
    select
        seen.user_id,
        popular.place
    from seen
    inner join popular on seen.item_id = popular.item_id
)

select popular.place - count(seen_places.place) as rank
from held_out
inner join popular on held_out.item_id = popular.item_id
left join seen_places on held_out.user_id = seen_places.user_id and popular.place > seen_places.place
group by held_out.user_id, popular.place
