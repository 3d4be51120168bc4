-- One row per user of the view users who belongs to shard $shard of $n_shards: the user's place.
select place
from users
where shard_of(user_id, $blanks, $n_shards) = $shard
order by place
