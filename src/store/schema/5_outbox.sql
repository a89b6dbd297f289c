-- Where results are sent. `owner` is an agent's or a source's id.
create table callbacks (
  owner text {c} primary key,
  definition text {c} not null,
  -- Since when nothing is sent there because the receiver said that it is gone.
  off_since bigint,
  -- Nothing is sent before: the receiver asked for a pause.
  not_before bigint not null default 0
);

-- Messages that leave, written in the transaction of what they tell.
create table outbox (
  -- The `webhook-id`, the same each time it is sent.
  id text {c} primary key,
  owner text {c} not null,
  -- Null for a test.
  session_id text {c},
  turn_id text {c},
  -- The length of the session's log when it was written: its place among the session's messages.
  seq bigint not null,
  kind text {c} not null,
  body text {c} not null,
  -- Through how many callbacks what it tells of has come.
  hops bigint not null,
  status text {c} not null check (status = 'waiting' or status = 'sent' or status = 'dead'),
  -- When it is due, and while somebody sends it, until when that is believed. Null too while an earlier
  -- message of its session is on its way.
  next_at bigint,
  -- Who sends it now.
  claimed_by text {c},
  -- Grows with every claim.
  n_attempts bigint not null default 0,
  -- Those before somebody ordered that it be sent again.
  n_attempts_before bigint not null default 0,
  -- What the receiver answered last, and what went wrong.
  last_code bigint,
  last_error text {c},
  last_attempt_at bigint,
  created_at bigint not null,
  ended_at bigint,
  constraint due_is_waiting check (next_at is null or status = 'waiting'),
  constraint claimed_is_timed check (claimed_by is null or next_at is not null),
  constraint ended_with_time check ((status = 'waiting') = (ended_at is null))
);
-- The claim: due messages of one owner, oldest first.
create index outbox_due on outbox (owner, next_at) where next_at is not null;
-- What a process that starts again had claimed in its life before.
create index outbox_claimed on outbox (claimed_by) where claimed_by is not null;
-- Who of a session is next.
create index outbox_lines on outbox (session_id, seq) where status = 'waiting';
-- The list of a session's messages, newest first.
create index outbox_by_session on outbox (session_id, id) where session_id is not null;
-- The list of what goes to one callback, newest first.
create index outbox_by_owner on outbox (owner, id);
-- The lists of what was not sent.
create index outbox_waiting on outbox (id) where status = 'waiting';
create index outbox_dead on outbox (id) where status = 'dead';
