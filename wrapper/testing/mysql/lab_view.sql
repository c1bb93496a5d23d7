-- What an instance of the lab believes. The facts come from a JSON file per instance, which the lab's controller replaces: a view of the
-- cluster can be changed at once, on a read-only reader too, and can be stale on one instance alone. Who may read the file is the
-- definer; applications cannot choose it.

CREATE DEFINER = lab@'%' FUNCTION mysql.rds_lab_view() RETURNS LONGTEXT CHARACTER SET utf8mb4 READS SQL DATA SQL SECURITY DEFINER
    RETURN CONVERT(LOAD_FILE(CONCAT(@@datadir, '../view.json')) USING utf8mb4);
