-- One row per sample user of the recommendations at $recs: of the users by model, in the order of the lengths of their
-- histories at $sequences, those at 5, 50 and 95 %, and the first user whose list starts with popular items.
with firsts as (
    select
        user_id,
        source
    from read_parquet($recs, hive_partitioning = false)
    where rank = 1
),

histories as (
    select
        user_id,
        len(item_ids) as n_events
    from read_parquet($sequences, hive_partitioning = false)
),

placed as (
    select
        histories.user_id,
        histories.n_events,
        row_number() over (order by histories.n_events, histories.user_id) - 1 as place,
        count(*) over () - 1 as last_place
    from histories
    inner join firsts on histories.user_id = firsts.user_id
    where firsts.source = 'model'
),

cold as (
    select min(user_id) as user_id
    from firsts
    where source not in ('model', 'pinned')
)

select
    user_id,
    n_events,
    case
        when place = floor(0.05 * last_place) then 'a short history'
        when place = floor(0.5 * last_place) then 'a history of median length'
        else 'a long history'
    end as chosen_as
from placed
where place in (floor(0.05 * last_place), floor(0.5 * last_place), floor(0.95 * last_place))
union all
select
    cold.user_id,
    coalesce(histories.n_events, 0) as n_events,
    'cold: a list of popular items' as chosen_as
from cold
left join histories on cold.user_id = histories.user_id
where cold.user_id is not null
order by chosen_as like 'cold%' asc, n_events asc, user_id asc
