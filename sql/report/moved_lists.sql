-- One row per user of the $n_users in both tables of moves whose lists keep the smallest share of items: the length of
-- the list, and how many of its items were in the list before.
select
    user_id,
    n_tonight,
    n_kept
from moves
where n_tonight > 0 and n_before > 0 and n_kept < n_tonight
order by n_kept / n_tonight asc, n_tonight desc, user_id asc
limit $n_users
