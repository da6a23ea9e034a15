-- Organisations, accounts, members, keys.

-- name: org_insert
INSERT INTO organisation (id, name, created_at) VALUES (%(id)s, %(name)s, %(now)s)
ON CONFLICT (name) DO NOTHING

-- name: org_list
SELECT id, name, created_at FROM organisation
WHERE %(org_id)s::text IS NULL OR id = %(org_id)s ORDER BY name

-- name: ledger_account_insert
INSERT INTO ledger_account (path, unit, rollup, floor)
VALUES (%(path)s, %(unit)s, %(rollup)s, %(floor)s) RETURNING id

-- name: account_insert
INSERT INTO account (id, org_id, parent_id, path, lineage, wallet_id, cash_id, spend_id, limit_ids,
                     created_at)
VALUES (%(id)s, %(org_id)s, %(parent_id)s, %(path)s, %(lineage)s, %(wallet_id)s, %(cash_id)s,
        %(spend_id)s, %(limit_ids)s, %(now)s)

-- name: account_by_path
SELECT * FROM account WHERE path = %(path)s

-- name: account_seen
-- An account with the roles that a member has on it and on all above it.
SELECT a.*, ARRAY(SELECT r.role FROM member_role r WHERE r.member_id = %(member_id)s
                  AND r.account_id = ANY(a.lineage)) AS roles
FROM account a WHERE a.path = %(path)s

-- name: account_by_id
SELECT * FROM account WHERE id = %(id)s

-- name: accounts_by_ids
SELECT * FROM account WHERE id = ANY(%(ids)s)

-- name: accounts_of_org
SELECT * FROM account WHERE %(org_id)s::text IS NULL OR org_id = %(org_id)s ORDER BY path

-- name: member_insert
INSERT INTO member (id, org_id, name, created_at) VALUES (%(id)s, %(org_id)s, %(name)s, %(now)s)
ON CONFLICT (org_id, name) DO NOTHING

-- name: member_by_name
SELECT * FROM member WHERE org_id = %(org_id)s AND name = %(name)s

-- name: members_of_org
SELECT m.id, m.org_id, m.name, m.created_at,
       (SELECT json_agg(json_build_object('account', a.path, 'role', r.role) ORDER BY a.path)
        FROM member_role r JOIN account a ON a.id = r.account_id WHERE r.member_id = m.id) AS roles
FROM member m WHERE m.org_id = %(org_id)s ORDER BY m.name

-- name: role_upsert
INSERT INTO member_role (member_id, account_id, role)
VALUES (%(member_id)s, %(account_id)s, %(role)s)
ON CONFLICT (member_id, account_id) DO UPDATE SET role = EXCLUDED.role

-- name: roles_of_member
SELECT account_id, role FROM member_role WHERE member_id = %(member_id)s

-- name: key_insert
INSERT INTO api_key (id, member_id, hash, hint, created_at, expires_at)
VALUES (%(id)s, %(member_id)s, %(hash)s, %(hint)s, %(now)s, %(expires_at)s)

-- name: key_by_hash
SELECT k.id, k.member_id, m.org_id, k.hint, k.created_at, k.expires_at, k.revoked_at
FROM api_key k LEFT JOIN member m ON m.id = k.member_id WHERE k.hash = %(hash)s

-- name: key_by_id
SELECT k.id, k.member_id, m.org_id, k.hint, k.created_at, k.expires_at, k.revoked_at
FROM api_key k LEFT JOIN member m ON m.id = k.member_id WHERE k.id = %(id)s

-- name: keys_listed
-- Keys of an organisation's members (of one with `member_id`); without one, the operators' keys.
SELECT k.id, m.name AS member, k.hint, k.created_at, k.expires_at, k.revoked_at
FROM api_key k LEFT JOIN member m ON m.id = k.member_id
WHERE m.org_id IS NOT DISTINCT FROM %(org_id)s
  AND (%(member_id)s::text IS NULL OR k.member_id = %(member_id)s)
ORDER BY k.created_at DESC, k.id DESC LIMIT 1000

-- name: key_revoke
UPDATE api_key SET revoked_at = %(now)s WHERE id = %(id)s AND revoked_at IS NULL

-- name: replay_claim
-- The first transaction with a key writes this row; a second one waits here until the first ends.
INSERT INTO idempotency (actor, key, request_hash, created_at)
VALUES (%(actor)s, %(key)s, %(request_hash)s, %(now)s)
ON CONFLICT (actor, key) DO NOTHING

-- name: replay_find
SELECT request_hash, response FROM idempotency WHERE actor = %(actor)s AND key = %(key)s

-- name: replay_store
UPDATE idempotency SET response = %(response)s WHERE actor = %(actor)s AND key = %(key)s
