-- An operator's own figures for accelerators of the catalogue. Rows are only ever added.

-- name: catalog_overrides
SELECT device, field, value, source, set_by, created_at, make FROM catalog_override
WHERE %(device)s::text IS NULL OR device = %(device)s ORDER BY id

-- name: catalog_override_insert
INSERT INTO catalog_override (device, field, value, source, set_by, created_at, make)
VALUES (%(device)s, %(field)s, %(value)s, %(source)s, %(set_by)s, %(now)s, %(make)s)
