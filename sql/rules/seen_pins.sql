-- One row per user of the histories at $sequences and pin, in the view pins, that the user has seen: in the history, or
-- in the column also_seen if it exists.
with events as (
    select
        trim(cast(user_id as varchar), $blanks) as user_id,
        trim(
            cast(unnest(list_concat(*columns(lambda name: name in ('item_ids', 'also_seen')))) as varchar),
            $blanks
        ) as item_id
    from read_parquet($sequences, hive_partitioning = false)
)

select distinct
    events.user_id,
    events.item_id
from events
inner join pins on events.item_id = pins.item_id
