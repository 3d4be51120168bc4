-- One row per user, numbered: the history, the number of its oldest events to train on (all before the cut), the items
-- of the later events, and the reason why the user cannot be tested, null if these are the test.
with histories as (
    select
        user_id,
        columns(lambda name: name in ('item_ids', 'timestamps', 'weights')),
        len(list_filter(timestamps, lambda moment: moment < $cut)) as n_training
    from read_parquet($path, hive_partitioning = false)
)

select
    user_id,
    row_number() over (order by user_id) - 1 as user_index,
    columns(lambda name: name in ('item_ids', 'timestamps', 'weights')),
    n_training,
    item_ids[n_training + 1:] as test_ids,
    case
        when n_training = len(item_ids) then 'no event after the cut'
        when n_training = 0 then 'no history before the cut'
        when not $keep_seen and list_has_all(item_ids[:n_training], test_ids)
            then 'nothing new after the cut'
    end as reason
from histories
