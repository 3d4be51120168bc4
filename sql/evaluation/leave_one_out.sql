-- One row per user, numbered: the history, the number of its oldest events to train on, the items of the test, and the
-- reason why the user cannot be tested, null if the last event is the test. At least three events: one to score from,
-- one that training may hold out, and the test.
select
    user_id,
    row_number() over (order by user_id) - 1 as user_index,
    columns(lambda name: name in ('item_ids', 'timestamps', 'weights')),
    case
        when len(item_ids) < 3 then 'fewer than 3 events'
        when not $keep_seen and list_contains(item_ids[:-2], item_ids[-1]) then 'last item seen before'
    end as reason,
    if(reason is null, len(item_ids) - 1, len(item_ids)) as n_training,
    item_ids[n_training + 1:] as test_ids
from read_parquet($path, hive_partitioning = false)
