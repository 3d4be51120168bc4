-- One row per option of a rule table that recommendations, in the view judged_recs, break: how many do, and the first
-- one's user, rank and item.
with forbidden as (
    select
        user_id,
        rank,
        item_id,
        unnest([
            if(is_allowed, null, '--allow'),
            if(is_blocked, '--block', null),
            if(is_blocked_for_user, '--block-for-user', null),
            if(is_candidate, null, '--candidates')
        ]) as option
    from judged_recs
    where not is_allowed or is_blocked or is_blocked_for_user or not is_candidate
)

select
    option,
    count(*) as n_rows,
    min(row(user_id, rank, item_id)) as example
from forbidden
where option is not null
group by option
