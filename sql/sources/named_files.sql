-- One row per row of a source, with the name of its file, such as a URL, in place of the path.
-- Parameters: source, a view with batchrec_file; paths and names of its files, in one order.
select * replace ($names[list_position($paths, batchrec_file)] as batchrec_file)
from query_table($source)
