-- One row per option whose rule table is broken by recommendations in the view judged_recs: their number, and user,
-- rank and item of the first one.
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
