-- One row per tested user: the history without the test, as in the sequences table.
select
    user_id,
    columns(lambda name: name in ('item_ids', 'timestamps', 'weights'))[:n_training],
    item_ids[:0] as also_seen
from split
where user_index in (select tested_users.user_index from tested_users)
order by user_id
