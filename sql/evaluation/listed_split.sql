-- One row per user, numbered: the history, the number of its oldest events to train on, the later items that the table
-- test_pairs lists for the user, and the reason why the user cannot be tested, null if these are the test. The training
-- part ends before the first of the places in test_pairs.
with tests as (
    select
        user_id,
        min(place) - 1 as n_training,
        list(item_id) as listed_ids
    from test_pairs
    where place is not null
    group by user_id
),

histories as (
    select
        log.*,
        tests.listed_ids,
        coalesce(tests.n_training, len(log.item_ids)) as n_training
    from read_parquet($path, hive_partitioning = false) as log
    left join tests on log.user_id = tests.user_id
)

select
    user_id,
    row_number() over (order by user_id) - 1 as user_index,
    columns(lambda name: name in ('item_ids', 'timestamps', 'weights')),
    n_training,
    list_filter(item_ids[n_training + 1:], lambda item: list_contains(listed_ids, item)) as test_ids,
    case
        when listed_ids is null then 'not in --split'
        when n_training = 0 then 'no history before the test items'
        when not $keep_seen and list_has_all(item_ids[:n_training], test_ids) then 'no new test item'
    end as reason
from histories
