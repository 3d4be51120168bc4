-- One row per user: the training part of the history, as in the sequences table.
select
    user_id,
    columns(lambda name: name in ('item_ids', 'timestamps', 'weights'))[:n_training],
    item_ids[:0] as also_seen
from split
where n_training > 0
order by user_id
