-- One row per user and pin, in the view pins, that the user may not get because it is in the view blocked_items.
with blocked as (
    select
        user_id,
        unnest(item_ids) as item_id
    from blocked_items
)

select distinct
    blocked.user_id,
    blocked.item_id
from blocked
inner join pins on blocked.item_id = pins.item_id
