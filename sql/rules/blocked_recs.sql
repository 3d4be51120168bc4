-- One row: the number of recommendations, in the view ruled_recs, of items that the user may not get by the view
-- blocked_items, and user, rank and item of the first one.
with blocked as (
    select
        user_id,
        unnest(item_ids) as item_id
    from blocked_items
)

select
    count(*) as n_rows,
    min(row(ruled_recs.user_id, ruled_recs.rank, ruled_recs.item_id)) as example
from ruled_recs
semi join blocked on ruled_recs.user_id = blocked.user_id and ruled_recs.item_id = blocked.item_id
