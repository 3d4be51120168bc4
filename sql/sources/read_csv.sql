-- One row per record of the CSV files, every value as text. Records that do not parse go to reject_errors.
-- Parameters: paths, columns (name -> type), delimiter, new_line, has_header, quote, compression.
select *
from read_csv(
    $paths,
    columns = $columns,
    delim = $delimiter,
    new_line = $new_line,
    header = $has_header,
    quote = $quote,
    escape = $quote,
    comment = '',
    compression = $compression,
    auto_detect = false,
    filename = 'batchrec_file',
    hive_partitioning = false,
    store_rejects = true
)
