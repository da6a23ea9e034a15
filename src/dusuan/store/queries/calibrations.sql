-- What devices sustain by class of work, and the finished runs it is learnt from.

-- name: calibration_insert
INSERT INTO calibration (device, class, software, precision, unit, value, low, high, samples, method,
                         detail, measured_at)
VALUES (%(device)s, %(class_)s, %(software)s, %(precision)s, %(unit)s, %(value)s, %(low)s, %(high)s,
        %(samples)s, %(method)s, %(detail)s, %(now)s)

-- name: calibrations_latest
SELECT DISTINCT ON (c.device, c.class) c.device, d.model, c.class AS class_, c.software, c.precision,
       c.unit, c.value, c.low, c.high, c.samples, c.method, c.detail, c.measured_at
FROM calibration c JOIN device d ON d.device = c.device
ORDER BY c.device, c.class, c.id DESC

-- name: runs_finished
-- The latest attempts that ended well and said how far they got, with one of their devices each.
SELECT a.id, l.device, a.model, a.devices, j.name AS template, c.org_id,
       j.spec -> 'workload' ->> 'kind' AS kind, a.held_ms,
       (a.meter ->> 'flop')::double precision AS flop,
       (a.meter -> 'progress' ->> 0)::double precision AS done
FROM (SELECT * FROM attempt WHERE state = 'ended' AND end_reason = 'exit' AND exit_code = 0
          AND number = 1 AND held_ms >= 1000
      ORDER BY ended_at DESC LIMIT 2000) a
JOIN job j ON j.id = a.job_id AND NOT j.probe
JOIN account c ON c.id = j.account_id
JOIN allocation l ON l.attempt_id = a.id
