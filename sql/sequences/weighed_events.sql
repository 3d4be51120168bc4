-- One row per event that may belong in a history, with its weight. Events below --min-rating, events of weight 0 and
-- all events of an item that the user dislikes have left_out set.
-- Reads loaded_events.
with usable as (
    select
        user_id,
        item_id,
        moment,
        below_min_rating,
        weight,
        is_seen
    from loaded_events
    where problem is null and not before_since
),

disliked as (
    select distinct
        user_id,
        item_id
    from usable
    where weight < 0
)

select
    usable.*,
    disliked.item_id is not null as is_disliked,
    usable.below_min_rating or usable.weight = 0 or disliked.item_id is not null as left_out
from usable
left join disliked on usable.user_id = disliked.user_id and usable.item_id = disliked.item_id
