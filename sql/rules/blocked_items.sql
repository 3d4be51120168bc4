-- One row per user of the histories at $sequences: the items that the user may not get, as trimmed text, some twice:
-- those of events from $seen_from (Unix seconds, -infinity to infinity) that count as seen, other seen items unless
-- $seen_from is infinity, and disliked items. The columns also_seen, is_seen and disliked may be missing.
with histories as (
    select *
    from read_parquet($sequences, hive_partitioning = false)
    union all by name
    select
        cast(null as varchar[]) as also_seen,
        cast(null as boolean[]) as is_seen,
        cast(null as varchar[]) as disliked
    where false
),

blocked as (
    select
        user_id,
        case
            when $seen_from = cast('infinity' as double) then []
            when $seen_from = cast('-infinity' as double) and is_seen is null then item_ids
            else
                list_select(
                    item_ids,
                    list_filter(
                        range(1, len(item_ids) + 1),
                        lambda place: timestamps[place] >= $seen_from and coalesce(is_seen[place], true)
                    )
                )
        end as from_history,
        if($seen_from = cast('infinity' as double), [], also_seen) as others,
        disliked
    from histories
)

select
    trim(cast(user_id as varchar), $blanks) as user_id,
    list_transform(
        list_concat(cast(from_history as varchar[]), cast(others as varchar[]), cast(disliked as varchar[])),
        lambda item_id: trim(item_id, $blanks)
    ) as item_ids
from blocked
