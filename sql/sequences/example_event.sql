-- At most one row: the first event with a time whose time is of a kind (with or without its last digits), or whose id
-- does not fit.
-- Reads events. Parameters: time_kind, or null; unfit, 'user', 'item' or null.
select
    file,
    raw_user,
    raw_item,
    raw_time,
    raw_rating,
    raw_event,
    raw_value
from events
where
    moment is not null
    and (
        time_kind in ($time_kind, $time_kind + 8)
        or (not user_fits and $unfit = 'user')
        or (not item_fits and $unfit = 'item')
    )
limit 1 -- noqa: AM09
