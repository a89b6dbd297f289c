-- Deployments: what starts sessions, by hand or when its time has come.
create table deployments (
  id text {c} primary key,
  name text {c} not null,
  description text {c},
  agent_id text {c} not null,
  agent_version bigint not null,
  environment_id text {c} not null,
  -- What each session starts with: JSON lists, and an object of limits.
  initial_events text {c} not null,
  resources text {c} not null,
  vault_ids text {c} not null,
  metadata text {c} not null,
  limits text {c} not null,
  -- Five fields of cron and a time zone; null for those that are only run by hand.
  expression text {c},
  timezone text {c},
  -- `manual`, or the kind of the error because of which its schedule rests.
  paused text {c},
  -- The time of the schedule that comes next. Whoever moves it on has claimed the time that it was.
  next_at bigint,
  last_run_at bigint,
  created_at bigint not null,
  updated_at bigint not null,
  archived_at bigint,
  constraint expression_has_zone check ((expression is null) = (timezone is null)),
  constraint at_rest_is_not_due check (next_at is null
    or (expression is not null and paused is null and archived_at is null))
) {keyed};
-- What is due, and what comes next.
create index deployments_due on deployments (next_at) where next_at is not null;
-- Those of an agent, newest first, and what is archived with it.
create index deployments_by_agent on deployments (agent_id, id);

-- What became of each time. Append-only.
create table deployment_runs (
  id text {c} primary key,
  deployment_id text {c} not null,
  agent_id text {c} not null,
  agent_version bigint not null,
  session_id text {c},
  error_type text {c},
  error_message text {c},
  -- The time of the schedule; null for a run by hand.
  scheduled_at bigint,
  -- Times before that one which nobody was there for.
  n_skipped bigint not null default 0,
  created_at bigint not null,
  constraint session_or_error check ((session_id is null) <> (error_type is null)),
  constraint error_has_message check ((error_type is null) = (error_message is null)),
  -- One time is one run, whoever fires it.
  unique (deployment_id, scheduled_at)
) {keyed};
-- The runs of a deployment, newest first.
create index deployment_runs_by_deployment on deployment_runs (deployment_id, id);
