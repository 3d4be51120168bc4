-- One row per object of JSON lines files, every value as text, null if the key is missing. Other lines are left out.
-- A raw control character cannot be in JSON, so each line is one field. Lines that are not UTF-8 go to reject_errors.
-- Parameters: paths; columns, line -> VARCHAR; structure, a JSON object of column -> VARCHAR; compression.
with objects as (
    select
        json_transform(line, $structure) as record,
        batchrec_file
    from
        read_csv(
            $paths,
            columns = $columns,
            delim = chr(31),
            new_line = '\n',
            header = false,
            quote = '',
            escape = '',
            comment = '',
            compression = $compression,
            auto_detect = false,
            strict_mode = false,
            filename = 'batchrec_file',
            hive_partitioning = false,
            store_rejects = true
        )
    where case when json_valid(line) then json_type(line) = 'OBJECT' else false end
)

select
    unnest(record), -- noqa: AL03
    batchrec_file
from objects
