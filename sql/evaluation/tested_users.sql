-- One row a tested user, numbered: all who can be, or a random sample of that many, by a hash that the seed decides.
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
