-- One row per reason why users are not tested, most users first.
select
    coalesce(split.reason, 'not in the sample') as reason,
    count(*) as n_users
from split
anti join tested_users on split.user_index = tested_users.user_index
group by coalesce(split.reason, 'not in the sample')
order by n_users desc, reason asc
