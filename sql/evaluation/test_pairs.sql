-- One row per user and item of the view listed, as the log spells them, with the place of their last event in the
-- history, from 1; null without one. Ids are compared by their trimmed text.
with pairs as (
    select distinct
        user_id,
        item_id
    from listed
),

events as (
    select
        user_id,
        unnest(item_ids) as item_id,
        unnest(range(1, len(item_ids) + 1)) as place,
        trim(cast(user_id as varchar), $blanks) as spelled_user,
        trim(cast(unnest(item_ids) as varchar), $blanks) as spelled_item
    from read_parquet($path, hive_partitioning = false)
)

select
    pairs.user_id as listed_user,
    pairs.item_id as listed_item,
    events.user_id,
    events.item_id,
    max(events.place) as place
from pairs
left join events on pairs.user_id = events.spelled_user and pairs.item_id = events.spelled_item
group by pairs.user_id, pairs.item_id, events.user_id, events.item_id
