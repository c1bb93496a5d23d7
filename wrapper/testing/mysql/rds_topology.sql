-- The table of an RDS Multi-AZ DB cluster's members. A single instance of RDS's has it too, empty unless a Blue/Green Deployment is under way.

CREATE DEFINER = lab@'%' SQL SECURITY DEFINER VIEW mysql.rds_topology AS
    SELECT id, endpoint, port
      FROM JSON_TABLE(mysql.rds_lab_view(), '$.topology[*]'
                      COLUMNS (id BIGINT PATH '$.id', endpoint VARCHAR(255) PATH '$.endpoint', port INT PATH '$.port')) AS member;
