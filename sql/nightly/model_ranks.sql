-- One row per later item in held_out: the number of the user, and the rank of the item in the user's list in recs; null
-- if it is not listed.
with later as (
    select
        number,
        user_id,
        unnest(later_items) as item_id
    from held_out
)

select
    later.number,
    recs.rank
from later
left join recs on later.user_id = recs.user_id and later.item_id = recs.item_id
