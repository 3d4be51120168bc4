-- One row per tested user and test item: an item after the training part that, unless $keep_seen, is not in the
-- user's history before it.
with later as (
    select distinct
        split.user_id,
        split.user_index,
        unnest(split.item_ids[split.n_training + 1:]) as item_id
    from split
    semi join tested_users on split.user_index = tested_users.user_index
)

select
    later.user_id,
    later.item_id
from later
inner join split on later.user_index = split.user_index
where $keep_seen or not list_contains(split.item_ids[:split.n_training], later.item_id)
