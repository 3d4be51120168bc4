-- One row per recommendation for the tested users number $first to $last: the items that the user took most often, the
-- more popular first among ties, then the more recent; then the popular items among all others.
with users as (
    select
        user_id,
        user_index
    from tested_users
    where place between $first and $last
),

own as (
    select
        users.user_index,
        training_events.item_id,
        row_number() over (
            partition by users.user_index
            order by count(*) desc, min(popular_items.place) asc nulls last, max(training_events.place) desc
        ) as place
    from users
    inner join training_events on users.user_index = training_events.user_index
    left join popular_items on training_events.item_id = popular_items.item_id
    group by users.user_index, training_events.item_id
),

others as (
    select
        users.user_index,
        popular_items.item_id,
        popular_items.place
    from users
    cross join popular_items
    anti join own on users.user_index = own.user_index and popular_items.item_id = own.item_id
    where popular_items.place <= $k
),

candidates as (
    select
        user_index,
        item_id,
        place,
        true as is_own
    from own
    union all
    select
        user_index,
        item_id,
        place,
        false as is_own
    from others
)

select
    users.user_id,
    candidates.item_id,
    row_number() over (
        partition by candidates.user_index
        order by candidates.is_own desc, candidates.place asc
    ) as rank
from candidates
inner join users on candidates.user_index = users.user_index
qualify rank <= $k
order by users.user_id, rank
