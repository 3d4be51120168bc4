-- The first event with a time that is of a kind, its last digits written or not, or whose user's or item's id does not
-- fit; a null asks for nothing.
select
    file,
    raw_user,
    raw_item,
    raw_time,
    raw_rating
from events
where
    moment is not null
    and (
        time_kind in ($time_kind, $time_kind + 8)
        or (not user_fits and $unfit = 'user')
        or (not item_fits and $unfit = 'item')
    )
limit 1 -- noqa: AM09
