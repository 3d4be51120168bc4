-- One row per tested user, numbered: all users who can be tested, or a sample of $most, by a hash with the seed.
with chosen as (
    select
        user_id,
        user_index
    from split
    where reason is null
    qualify $most is null or row_number() over (order by hash(user_id, $seed), user_id) <= $most
)

select
    user_id,
    user_index,
    row_number() over (order by user_index) - 1 as place
from chosen
