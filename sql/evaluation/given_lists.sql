-- One row per recommendation of the view given_recs for the tested users: the first $k items of each user by rank,
-- numbered from 1. Ids are compared by their trimmed text, and are spelled as in the log.
with users as (
    select
        user_id,
        trim(cast(user_id as varchar), $blanks) as spelled
    from tested_users
),

log_items as (
    select item_id from training_items
    union
    select item_id from test_items
),

items as (
    select
        min(item_id) as item_id,
        trim(cast(item_id as varchar), $blanks) as spelled
    from log_items
    group by spelled
)

select
    users.user_id,
    coalesce(items.item_id, given_recs.item_id) as item_id,
    row_number() over (partition by users.user_id order by given_recs.position) as rank
from given_recs
inner join users on given_recs.user_id = users.spelled
left join items on cast(given_recs.item_id as varchar) = items.spelled
qualify rank <= $k
order by users.user_id, rank
