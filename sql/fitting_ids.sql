-- One row: whether every user's and every item's id is what it was loaded as. A row without a time has no say: it may
-- be a header in the middle of a file, which must not turn all ids into text.
select
    coalesce(bool_and(user_fits), true) as users_fit,
    coalesce(bool_and(item_fits), true) as items_fit
from loaded_events
where moment is not null
