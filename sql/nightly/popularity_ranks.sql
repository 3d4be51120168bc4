-- One row per later item in held_out: the number of the user, and the rank of the item by number of events, among the
-- items that are not in the user's history, or among all items if $keep_seen. Only events before $cut count; if it is
-- null, all except the held-out ones. Items with equally many events are in the order of the vocabulary.
with events as (
    select
        unnest(item_ids) as item_id,
        unnest(timestamps) as moment
    from read_parquet($path, hive_partitioning = false)
),

counted as (
    select
        item_id,
        count(*) as n_events,
        count(*) filter ($cut is null or moment < $cut) as n_before
    from events
    group by item_id
),

later as (
    select
        number,
        unnest(later_items) as item_id
    from held_out
),

held as (
    select
        item_id,
        count(*) as n_events
    from later
    where $cut is null
    group by item_id
),

popular as (
    select
        counted.item_id,
        row_number() over (
            order by
                counted.n_before - coalesce(held.n_events, 0) desc, counted.n_events desc, counted.item_id asc
        ) as place
    from counted
    left join held on counted.item_id = held.item_id
),

seen as (
    select distinct
        number,
        unnest(item_ids) as item_id
    from held_out
    where not $keep_seen
),

seen_places as (
    select
        seen.number,
        popular.place
    from seen
    inner join popular on seen.item_id = popular.item_id
)

select
    later.number,
    popular.place - count(seen_places.place) as rank
from later
inner join popular on later.item_id = popular.item_id
left join seen_places on later.number = seen_places.number and popular.place > seen_places.place
group by later.number, popular.place
