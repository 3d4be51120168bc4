-- One row per user, numbered: the history, the number of its oldest events to train on (all before the first test
-- event), the items of the table test_pairs in the order of their events, and the reason why the user cannot be tested,
-- null if these are the test.
with tests as (
    select
        user_id,
        min(place) - 1 as n_training,
        list(item_id order by place) as test_ids
    from test_pairs
    where place is not null
    group by user_id
),

histories as (
    select
        log.user_id,
        log.item_ids,
        log.timestamps,
        coalesce(tests.n_training, len(log.item_ids)) as n_training,
        coalesce(tests.test_ids, log.item_ids[:0]) as test_ids
    from read_parquet($path, hive_partitioning = false) as log
    left join tests on log.user_id = tests.user_id
)

select
    user_id,
    row_number() over (order by user_id) - 1 as user_index,
    item_ids,
    timestamps,
    n_training,
    test_ids,
    case
        when len(test_ids) = 0 then 'not in --split'
        when n_training = 0 then 'no history before the test items'
        when not $keep_seen and list_has_all(item_ids[:n_training], test_ids) then 'no new test item'
    end as reason
from histories
