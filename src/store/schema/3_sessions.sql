-- A session is also its own place in the queue: `next_at` is when it wants work, and while a worker
-- has it, the end of the lease. Retries, timers and crashed workers are all this one column.
create table sessions (
  id text {c} primary key,
  agent_id text {c} not null,
  agent_version bigint not null,
  -- Overrides of this session only; null means the agent's version as it is.
  overrides text {c},
  environment_id text {c} not null,
  -- Empty for those that no source made: PostgreSQL finds the first of a line by a value, not by null.
  source_id text {c} not null default '',
  -- The deployment that started it.
  deployment_id text {c},
  title text {c},
  metadata text {c} not null,
  -- Written out: for an `in` of more than two SQLite makes a table each time a row is written.
  status text {c} not null
    check (status = 'idle' or status = 'running' or status = 'rescheduling' or status = 'terminated'),
  created_at bigint not null,
  updated_at bigint not null,
  archived_at bigint,
  -- Vaults whose credentials it may use, as JSON; null for none.
  vault_ids text {c},

  next_at bigint,
  -- The number of the next event of the log.
  next_seq bigint not null default 1,
  -- Positions of the inbox: given so far, and taken into the log so far.
  inbox_given bigint not null default 0,
  inbox_taken bigint not null default 0,
  -- The message that it was made for, in its first position, until a turn takes it: where that is small
  -- and waits for nothing it is here and not in the inbox. It came when the session did. While it is here
  -- the session is in one index of its own in the place of two others: an accept writes two trees less.
  -- Whether it is here: an index whose condition says so knows it without the row.
  is_first bigint not null default 0 check (is_first = 0 or is_first = 1),
  first_event_id text {c},
  first_body text {c},
  first_source text {c},
  first_indented bigint not null default 0 check (first_indented = 0 or first_indented = 1),
  first_private text {c},
  first_delivery_id text {c},
  lease_owner text {c},
  lease_until bigint,
  -- Grows with every claim. A write that names an older one changes nothing.
  epoch bigint not null default 0,
  turn_id text {c},
  -- Since when it waits for another session to leave their environment.
  parked_at bigint,
  -- When messages that wait for quiet are taken at the latest; null while none does.
  ripe_by bigint,
  -- What messages that came during the turn ask of it: 0 nothing, 1 to be taken up before the next
  -- model request, 2 to make way, 3 to stop.
  urgency bigint not null default 0,
  -- The event of whoever stops it, until it is in the log.
  interrupt_id text {c},

  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cache_creation_tokens bigint not null default 0,
  cache_read_tokens bigint not null default 0,
  -- Millionths of a US dollar, of all requests whose model has a price.
  cost_micros bigint not null default 0,
  -- Requests whose model has none: while there are any, the cost is not known.
  unpriced_requests bigint not null default 0,
  active_ms bigint not null default 0,

  constraint leased_with_end check ((lease_owner is null) = (lease_until is null)),
  constraint leased_is_timed check (lease_owner is null or next_at is not null),
  constraint waiting_is_due check (inbox_taken = inbox_given or next_at is not null),
  constraint inbox_in_order check (inbox_taken <= inbox_given),
  constraint rescheduled_is_timed check (status <> 'rescheduling' or next_at is not null),
  constraint terminated_rests check (status <> 'terminated' or lease_owner is null),
  constraint first_is_there check ((is_first = 1) = (first_event_id is not null)),
  constraint first_waits_for_nothing check (is_first = 0
    or (next_at is not null and turn_id is null and parked_at is null and ripe_by is null))
) {keyed};
-- The claim, and the list of an agent's sessions: those that still have their first message, oldest first.
-- A line that is full costs one look, however long it is. It also counts how many of each source wait.
create index sessions_first on sessions (agent_id, source_id, id) where is_first = 1;
-- The same of all others that want work.
create index sessions_due on sessions (agent_id, source_id, next_at)
  where next_at is not null and is_first = 0;
-- The claim of what was begun and nobody works on, and how many of an agent, a source or a line are at
-- work.
-- An accept writes neither.
create index sessions_at_work on sessions (agent_id, next_at)
  where turn_id is not null or lease_owner is not null;
create index sessions_at_work_by_source on sessions (source_id, agent_id)
  where turn_id is not null or lease_owner is not null;
-- Turns of one process that shall stop.
create index sessions_urgent on sessions (lease_owner) where urgency >= 2;
-- Who is next in an environment.
create index sessions_parked on sessions (environment_id, parked_at) where parked_at is not null;
-- The list of an agent's sessions, newest first, but for those that still have their first message.
create index sessions_by_agent on sessions (agent_id, id) where is_first = 0;
-- The list of a deployment's sessions, newest first. Deliveries start none of them.
create index sessions_by_deployment on sessions (deployment_id, id) where deployment_id is not null;

-- One session per value of a source's key template.
create table session_keys (
  source_id text {c} not null,
  key text {c} not null,
  session_id text {c} not null,
  primary key (source_id, key)
) {keyed};

-- Messages that have arrived and are not taken yet, in commit order, but for a first one that is in its
-- session's row. Small as a rule, as the payload that they show stays with its delivery: SQLite has them
-- in the tree of their key, one tree less to write.
create table inbox (
  session_id text {c} not null,
  position bigint not null,
  event_id text {c} not null,
  body text {c} not null,
  -- Pieces of a body too large for one row, in `chunks` under the event's id; 0 when inline.
  n_chunks bigint not null default 0,
  -- What the source was called, where `body` is only the text before the payload and the rest is in the
  -- delivery; else null.
  source text {c},
  -- Whether the payload stands in it as indented JSON.
  indented bigint not null default 0 check (indented = 0 or indented = 1),
  private text {c},
  delivery_id text {c},
  received_at bigint not null,
  primary key (session_id, position)
) {keyed};
-- The sweep of pieces: whether a message still has them.
create index inbox_in_pieces on inbox (event_id) where n_chunks > 0;
-- All that wait, wherever they are. Both halves have the same types, without which neither database
-- looks into them for a part only; and the second says nothing that the index of such sessions says,
-- as PostgreSQL would read all of that for one of them.
create view waiting (session_id, position, event_id, body, n_chunks, source, indented, private,
    delivery_id, received_at) as
  select session_id, position, event_id, body, n_chunks, source, indented, private, delivery_id, received_at
  from inbox
  union all
  select id, cast(1 as bigint), first_event_id, first_body, cast(0 as bigint), first_source,
    first_indented, first_private, first_delivery_id, created_at
  from sessions where first_event_id is not null;

-- The log. Append-only, numbered without gaps per session.
create table events (
  session_id text {c} not null,
  seq bigint not null,
  id text {c} not null,
  type text {c} not null,
  body text {c} not null,
  n_chunks bigint not null default 0,
  private text {c},
  turn_id text {c},
  processed_at bigint not null,
  primary key (session_id, seq)
);
-- The sweep of pieces: whether an event still has them.
create index events_in_pieces on events (id) where n_chunks > 0;

create table turns (
  id text {c} primary key,
  session_id text {c} not null,
  status text {c} not null check (status = 'running' or status = 'waiting' or status = 'done'),
  stop_reason text {c}
    check (stop_reason = 'end_turn' or stop_reason = 'retries_exhausted' or stop_reason = 'budget_reached'
      or stop_reason = 'refusal' or stop_reason = 'interrupted' or stop_reason = 'failed'),
  -- Claims that found this turn unfinished since it last got any further.
  resumes bigint not null default 0,
  -- Where the log stood at the last of those claims.
  resumed_seq bigint not null default 0,
  -- The trace of its first delivery, or one of its own.
  traceparent text {c} not null,
  started_at bigint not null,
  ended_at bigint,
  constraint done_has_reason check ((status = 'done') = (stop_reason is not null)),
  constraint done_has_end check ((status = 'done') = (ended_at is not null))
) {keyed};
-- The turns of a session.
create index turns_by_session on turns (session_id, id);
