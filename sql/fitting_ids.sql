-- One row: whether every user's and every item's id is what it was loaded as.
select
    coalesce(bool_and(user_fits), true) as users_fit,
    coalesce(bool_and(item_fits), true) as items_fit
from loaded_events
