-- One row per pin, in the view pins, and user of the histories at $sequences who has seen it.
with events as (
    select
        trim(cast(user_id as varchar)) as user_id,
        trim(cast(unnest(item_ids) as varchar)) as item_id
    from read_parquet($sequences)
)

select distinct
    events.user_id,
    events.item_id
from events
inner join pins on events.item_id = pins.item_id
