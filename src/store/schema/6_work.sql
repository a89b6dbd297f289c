-- Calls that somebody has to allow, or to carry out and tell the result of, by the event that made them.
-- A row is bound to the call and to what its input was when it was shown.
create table approvals (
  id text {c} primary key,
  session_id text {c} not null,
  turn_id text {c} not null,
  tool text {c} not null,
  fingerprint text {c} not null,
  -- What is waited for: whether it may be made, or what it led to.
  wanted text {c} not null check (wanted = 'confirmation' or wanted = 'custom_result'
    or wanted = 'tool_result'),
  -- Whether it is the client that carries it out once it is allowed.
  by_client bigint not null check (by_client in (0, 1)),
  status text {c} not null check (status = 'pending' or status = 'allow' or status = 'deny'
    or status = 'done' or status = 'expired' or status = 'void'),
  asked_at bigint not null,
  -- From then on it is denied, or has no result.
  expires_at bigint not null,
  -- The event that says the answer, and who gave it.
  event_id text {c},
  deny_message text {c},
  -- The result as an event's body, until it is in the log.
  result text {c},
  -- What the operator tells the model with it, and the event of that.
  told_id text {c},
  told text {c},
  actor text {c},
  answered_at bigint,
  -- Its place in the request that gave it.
  nth bigint not null default 0,
  -- Whether the answer is in the log.
  journaled bigint not null default 0 check (journaled in (0, 1)),
  constraint done_is_a_result check (status <> 'done' or wanted <> 'confirmation'),
  constraint told_has_event check ((told_id is null) = (told is null)),
  constraint answered_has_event check ((event_id is null) = (status = 'pending' or status = 'void'))
) {keyed};
-- What a turn waits for, and what was answered meanwhile.
create index approvals_open on approvals (session_id, id) where journaled = 0;

-- Calls that change the outside, by the event that made them: written before they are carried out,
-- and again with their outcome.
create table effects (
  id text {c} primary key,
  session_id text {c} not null,
  turn_id text {c} not null,
  agent_id text {c} not null,
  tool text {c} not null,
  -- The beginning of its input.
  input text {c} not null,
  status text {c} not null check (status = 'intended' or status = 'done' or status = 'failed'
    or status = 'in_doubt'),
  intended_at bigint not null,
  ended_at bigint,
  -- Who found out what became of one that was in doubt, and what they said.
  settled_by text {c},
  note text {c},
  constraint ended_has_end check ((status = 'intended') = (ended_at is null))
) {keyed};
-- What a turn did, and the list of what needs a person.
create index effects_by_turn on effects (turn_id, status);
create index effects_in_doubt on effects (id) where status = 'in_doubt';
-- What the agent of a session may settle.
create index effects_to_settle on effects (session_id, id) where status = 'in_doubt';
-- Whether there were others, for the same.
create index effects_settled on effects (session_id) where settled_by is not null;
-- What a session began and told no outcome of.
create index effects_begun on effects (session_id) where status = 'intended';
-- What a session did, newest first.
create index effects_by_session on effects (session_id, id);

-- What an agent, a source or a session may use, as JSON. Only those with a limit are here.
create table budgets (
  owner text {c} primary key,
  limits text {c} not null
) {keyed};

-- What was used by a turn or a session (day 0), and in a day (UTC) by an agent, a source, a model
-- (`model:` and its name), and all.
create table spending (
  scope text {c} not null,
  day bigint not null,
  -- What many count at once has parts, of which each session has one: whoever counts keeps the others of
  -- that part waiting until the commit. Part 0 is the only one of what nobody else counts, and on SQLite.
  part bigint not null default 0,
  cost_micros bigint not null default 0,
  tokens bigint not null default 0,
  model_calls bigint not null default 0,
  tool_calls bigint not null default 0,
  active_ms bigint not null default 0,
  -- Turns that ended, and requests whose model has no price.
  turns bigint not null default 0,
  unpriced_calls bigint not null default 0,
  -- By day first: a range of days is read in one piece, and forgotten in one.
  primary key (day, scope, part)
) {keyed};

-- What the model requests under way may use at most: one of a session, gone with its outcome or with
-- the next claim. There are as many as turns may run, so whoever sums them up reads them all, and each
-- request writes one tree.
create table reservations (
  session_id text {c} primary key,
  agent_id text {c} not null,
  source_id text {c} not null,
  cost_micros bigint not null,
  tokens bigint not null,
  -- Which model was asked, for what it will have used.
  model text {c} not null
) {keyed};
