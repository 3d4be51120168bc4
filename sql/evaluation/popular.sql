-- One row per recommendation for the tested users number $first to $last: the first of the popular items. A user needs
-- at most the first $k of them plus as many as they have seen.
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
        user_items.item_index
    from users
    inner join user_items on users.user_index = user_items.user_index
    where not $keep_seen
),

n_seen as (
    select
        user_index,
        count(*) as n_items
    from seen
    group by user_index
),

places as (
    select
        users.user_id,
        users.user_index,
        unnest(range(1, $k + coalesce(n_seen.n_items, 0) + 1)) as place
    from users
    left join n_seen on users.user_index = n_seen.user_index
)

select
    places.user_id,
    popular_items.item_id,
    row_number() over (partition by places.user_index order by popular_items.place) as rank
from places
inner join popular_items on places.place = popular_items.place
anti join seen on places.user_index = seen.user_index and popular_items.item_index = seen.item_index
qualify rank <= $k
order by places.user_id, rank
