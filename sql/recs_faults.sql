-- One row: what must not be in the recommendations at $recs, whose users' histories, and what else they
-- have seen, are at $sequences. Lists are made anew from the rows, so that nothing of the scorer's own account is
-- believed.
with lists as (
    select
        user_id,
        list(item_id) as item_ids,
        list(rank) as ranks,
        count(*) as n_rows,
        count(*) filter (where user_id is null or item_id is null or rank is null or score is null) as n_nulls,
        count(*) filter (where not isfinite(score)) as n_no_numbers
    from read_parquet($recs, hive_partitioning = false)
    group by user_id
),

seen as (
    select
        user_id,
        -- Who writes histories of their own may leave also_seen out.
        list_concat(*columns(lambda name: name in ('item_ids', 'also_seen'))) as item_ids
    from read_parquet($sequences, hive_partitioning = false)
)

select
    coalesce(sum(lists.n_nulls), 0) as nulls,
    coalesce(sum(lists.n_no_numbers), 0) as scores_that_are_no_numbers,
    coalesce(sum(lists.n_rows - len(list_distinct(lists.item_ids))), 0) as duplicates,
    count(*) filter (where list_sort(lists.ranks) != range(1, lists.n_rows + 1)) as users_with_gaps_in_ranks,
    coalesce(sum(if($keep_seen, 0, len(list_intersect(lists.item_ids, seen.item_ids)))), 0) as seen_items
from lists
left join seen on lists.user_id = seen.user_id
