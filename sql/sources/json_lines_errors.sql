-- One row per line of JSON lines files that is no object, or has a list or an object in one of the columns.
-- Blank lines are skipped. types: of the columns, null if the line is no object.
-- Parameters: paths; columns, line -> VARCHAR; pointers, JSON pointers to the columns; compression.
with typed as (
    select
        line,
        batchrec_file as file,
        case
            when json_valid(line) then if(json_type(line) = 'OBJECT', json_type(line, $pointers), null)
        end as types
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
    where trim(line, chr(32) || chr(9) || chr(13)) != ''
)

select
    file,
    line,
    types
from typed
where types is null or list_has_any(types, ['ARRAY', 'OBJECT'])
