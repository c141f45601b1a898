"""What the pictures of the dashboard show: a busy quarter of an hour in a shop, and where."""

from __future__ import annotations

from dataclasses import dataclass

SHOP = """
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves)
    SELECT role || '-' || number, role, '1.0.0', now() - interval '26 hours' / number,
        now() - interval '1 s' * number, CASE role
            WHEN 'scheduler' THEN '{"use_cases": ["notifications", "message_labeling"]}'
            ELSE '{"queues": ["notifications"], "types": ["send_welcome", "send_receipt"],
                   "running": 5, "concurrency": 10}'::jsonb END
    FROM unnest('{scheduler,worker}'::text[]) AS role, generate_series(1, 2) AS number;

    -- What waits, in flight and late: tenant, type, how many, slack of the first, seconds apart.
    INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
        deadline_at, due, status, attempts, leased_at, lease_expires_at, lease_seq, started_at,
        first_run_at, first_started_at, worker, created_at)
    SELECT gen_random_uuid(), tenant, use_case, type, use_case,
        jsonb_build_object('email', 'ada@mail.example', 'locale', 'en', 'password', 'sesame'),
        deadline - tolerance, tolerance, deadline, state = 'waiting',
        CASE state WHEN 'running' THEN 'running' ELSE 'pending' END, (state = 'running')::int,
        CASE state WHEN 'running' THEN now() - interval '9 s' END,
        CASE state WHEN 'running' THEN now() + interval '51 s' END, 1,
        CASE state WHEN 'running' THEN now() - interval '9 s' END, deadline - tolerance,
        CASE state WHEN 'running' THEN now() - interval '9 s' END,
        CASE state WHEN 'running' THEN 'worker-' || 1 + n % 2 END, deadline - tolerance
    FROM (VALUES
        ('notifications', 'acme', 'send_receipt', 'waiting', 4, -41, 9),
        ('notifications', 'acme', 'send_receipt', 'waiting', 21, 2, 3),
        ('notifications', 'bolt', 'send_welcome', 'waiting', 48, 12, 7),
        ('notifications', 'acme', 'send_welcome', 'waiting', 30, 240, 90),
        ('notifications', 'acme', 'send_receipt', 'running', 7, 20, 1),
        ('notifications', 'bolt', 'send_welcome', 'running', 3, 20, 1),
        ('message_labeling', 'bolt', 'label', 'waiting', 12, 75, 31),
        ('message_labeling', 'crest', 'label', 'waiting', 9, 900, 400),
        ('message_labeling', 'crest', 'label', 'running', 4, 60, 1)
    ) AS kind (use_case, tenant, type, state, jobs, slack, apart),
        generate_series(0, jobs - 1) AS n,
        LATERAL (SELECT now() + make_interval(secs => slack + n * apart) AS deadline) AS at,
        LATERAL (SELECT make_interval(secs => greatest(95, slack + n * apart + 47))
            AS tolerance) AS long;

    INSERT INTO jobs (id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance,
        deadline_at, due, status, attempts, finished_at, last_error, worker)
    SELECT gen_random_uuid(), (ARRAY['acme', 'acme', 'bolt'])[1 + n % 3], use_case, type, use_case,
        '{"email": "ada@mail.example"}', now() - interval '20 min', interval '1 min',
        now() - interval '19 min', false, 'dead', 3, now() - interval '7 min' - interval '1 s' * n,
        jsonb_build_object('type', error, 'message', message, 'traceback', ''), 'worker-1'
    FROM (VALUES
        ('notifications', 'send_receipt', 14, 'SMTPRecipientsRefused',
            '550 5.1.1 mailbox unavailable'),
        ('notifications', 'send_welcome', 5, 'TimeoutError', 'no answer within 30 s'),
        ('message_labeling', 'label', 2, 'KeyError', '''language''')
    ) AS kind (use_case, type, jobs, error, message), generate_series(1, jobs) AS n;

    -- First starts, how late and how long: a minute ago and before, an hour ago and before.
    INSERT INTO jobs_slo
    SELECT use_case, tenant, measure, span,
        date_bin(make_interval(secs => span), now(), '2000-01-01')
            - make_interval(secs => span * ago),
        CASE measure WHEN 'lateness' THEN late ELSE started END,
        CASE measure WHEN 'start' THEN late ELSE 0 END,
        CASE measure WHEN 'lateness' THEN late * late * 0.4 WHEN 'run' THEN started * 0.8
            ELSE 0 END,
        '{1,2,9,20,14,9,5}'
    FROM unnest('{notifications,message_labeling}'::text[]) AS use_case,
        unnest('{"",acme,bolt,crest}'::text[]) AS tenant,
        unnest('{start,lateness,run}'::text[]) AS measure,
        unnest('{60,3600}'::integer[]) AS span, generate_series(0, 59) AS ago,
        LATERAL (SELECT span / 60 * (60 + mod(ago * 37, 50)) AS started,
            CASE WHEN use_case = 'notifications' AND span = 60
            THEN greatest(0, 40 - 4 * abs(ago - 22)) WHEN use_case = 'notifications' AND ago = 0
            THEN 110 ELSE 0 END AS late) AS counted;
"""
WAITING = """
    SELECT id FROM jobs WHERE due AND tenant_id = 'bolt' AND use_case = 'notifications'
    ORDER BY deadline_at LIMIT 1
"""


PHONE = 390


@dataclass(frozen=True, slots=True)
class Picture:
    """A page in a window of this shape; a wide one is pictured to its end."""

    name: str
    path: str
    width: int = 1200
    height: int = 640
    scheme: str = "light"


def pictures(waiting_job: str) -> list[Picture]:
    """Those that README and docs show."""
    return [
        Picture("overview-light", ""),
        Picture("overview-dark", "", scheme="dark"),
        Picture("overview-phone", "", width=PHONE, height=844),
        Picture("job", f"jobs/{waiting_job}"),
        Picture("dead", "dead"),
        Picture("use-cases", "use-cases"),
    ]
