-- One row an event that parsed and cannot be used, in the words and, insertion order kept, the order of its file.
select
    file,
    cast(problem as varchar) as reason,
    raw_user,
    raw_item,
    raw_time,
    raw_rating
from events
where problem is not null
limit $most -- noqa: AM09
