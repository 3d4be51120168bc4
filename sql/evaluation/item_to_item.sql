-- One row per recommendation for the tested users number $first to $last: the items nearest to the user's newest items,
-- by the sum of their cosines with these, each divided by the item's place from the newest to the power of $decay; ties
-- in the order of ids. Users whose items have few neighbours get few.
with users as (
    select
        user_id,
        user_index
    from tested_users
    where place between $first and $last
),

seen as (
    select
        users.user_index,
        user_items.item_index,
        user_items.recency
    from users
    inner join user_items on users.user_index = user_items.user_index
),

near as (
    select
        seen.user_index,
        neighbours.neighbour as item_index,
        sum(cast(neighbours.cosine / power(seen.recency, $decay) as decimal(18, 12))) as score
    from seen
    inner join neighbours on seen.item_index = neighbours.item_index
    where seen.recency <= $items_per_user
    group by seen.user_index, neighbours.neighbour
),

allowed as (
    select
        near.user_index,
        near.item_index,
        near.score
    from near
    left join seen on near.user_index = seen.user_index and near.item_index = seen.item_index
    where $keep_seen or seen.item_index is null
    qualify row_number() over (partition by near.user_index order by near.score desc, near.item_index asc) <= $k
)

select
    users.user_id,
    training_items.item_id,
    row_number() over (partition by users.user_index order by allowed.score desc, allowed.item_index asc) as rank
from allowed
inner join users on allowed.user_index = users.user_index
inner join training_items on allowed.item_index = training_items.item_index
order by users.user_id, rank
