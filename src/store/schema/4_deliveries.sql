-- Deliveries. A row is also the identity: it stays when session and body are long gone.
create table deliveries (
  id text {c} primary key,
  source_id text {c} not null,
  -- What tells this event of the source from others.
  dedupe_key text {c} not null,
  identity_field text {c} not null,
  identity_weak bigint not null check (identity_weak in (0, 1)),
  status text {c} not null check (status = 'accepted' or status = 'filtered' or status = 'held'),
  -- Written out, as the states of sessions are.
  outcome text {c}
    check (outcome = 'pending' or outcome = 'running' or outcome = 'waiting' or outcome = 'succeeded'
      or outcome = 'failed' or outcome = 'cancelled' or outcome = 'in_doubt'),
  reason text {c},
  agent_id text {c},
  session_id text {c},
  turn_id text {c},
  event_type text {c},
  request_id text {c} not null,
  -- W3C Trace Context: the sender's, or one that began here.
  traceparent text {c} not null,
  n_attempts bigint not null default 1,
  received_at bigint not null,
  content_type text {c},
  body_bytes bigint not null,
  erased_at bigint,
  headers text {c} not null,
  -- Null when erased, or when the body is in `chunks` under the delivery's id.
  body {bytes},
  n_chunks bigint not null default 0,
  -- The secret that let it in, as `<name>@<version>`; null where a key of this server did.
  secret text {c},
  -- A delivery of the day before that had the same body under another id.
  possible_replay_of text {c},
  -- The sender's delivery whose bytes this one is made of, by somebody's order.
  replay_of text {c},
  constraint deliveries_identity unique (source_id, dedupe_key),
  constraint accepted_has_outcome check ((status = 'accepted') = (outcome is not null)),
  constraint accepted_has_session check (status <> 'accepted' or session_id is not null),
  constraint others_have_reason check (status = 'accepted' or reason is not null)
);
-- The list of a source's deliveries, newest first, is in two parts, so that an accept writes one of
-- them: those that wait, whose first tells how long the oldest of them has waited, and all others. The
-- outcome is in them for SQLite, which would read the row to see what the index says already.
create index deliveries_pending on deliveries (source_id, id, outcome) where outcome = 'pending';
create index deliveries_settled on deliveries (source_id, id, outcome)
  where outcome is distinct from 'pending';
-- The deliveries of a session that a turn has taken, for its page and for settling their outcome. Those
-- that wait are found by the session's messages, so that an accept does not write this index.
create index deliveries_by_session on deliveries (session_id, id) where outcome <> 'pending';
-- The lists of what needs a person.
create index deliveries_held on deliveries (id) where status = 'held';
create index deliveries_failed on deliveries (id) where outcome = 'failed' or outcome = 'in_doubt';

-- The replays of a delivery: few, so that nothing that senders send is in here.
create index deliveries_by_replay on deliveries (replay_of, id) where replay_of is not null;

-- The second and further requests for a delivery.
create table attempts (
  delivery_id text {c} not null,
  n bigint not null,
  request_id text {c} not null,
  received_at bigint not null,
  primary key (delivery_id, n)
) {keyed};

-- Pieces of bodies and messages that are too large for one row. `owner` is a delivery or an event.
create table chunks (
  owner text {c} not null,
  n bigint not null,
  data {bytes} not null,
  written_at bigint not null,
  primary key (owner, n)
);
-- The sweep of pieces whose accept never happened.
create index chunks_by_age on chunks (written_at) where n = 0;

-- Bodies of the last day, by the delivery that came with them first: only of sources whose senders
-- sign neither the id nor a time that is checked.
create table bodies_seen (
  id text {c} not null,
  source_id text {c} not null,
  body_hash {bytes} not null,
  seen_at bigint not null,
  primary key (source_id, body_hash)
) {keyed};
-- Forgetting what is older than a day.
create index bodies_seen_by_age on bodies_seen (seen_at);

-- Attempts that the gate refused: few, small, without bodies.
create table refusals (
  id text {c} primary key,
  source text {c} not null,
  source_id text {c},
  reason text {c} not null,
  at bigint not null
);
