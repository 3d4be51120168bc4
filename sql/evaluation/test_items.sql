-- One row per tested user and test item: an item of the test that, unless $keep_seen, is not in the user's history
-- before it; with $is_next_only the first of them.
with later as (
    select
        split.user_id,
        split.user_index,
        unnest(split.test_ids) as item_id,
        unnest(range(1, len(split.test_ids) + 1)) as place
    from split
    semi join tested_users on split.user_index = tested_users.user_index
)

select
    later.user_id,
    later.item_id
from later
inner join split on later.user_index = split.user_index
where $keep_seen or not list_contains(split.item_ids[:split.n_training], later.item_id)
group by later.user_id, later.item_id
qualify not $is_next_only or row_number() over (partition by later.user_id order by min(later.place)) = 1
