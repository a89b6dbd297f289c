-- Agents: what all versions share, and one row for each version.
create table agents (
  id text {c} primary key,
  name text {c} not null,
  version bigint not null,
  paused bigint not null default 0 check (paused in (0, 1)),
  managed_by text {c} not null check (managed_by in ('api', 'file')),
  created_at bigint not null,
  archived_at bigint
);
-- An agent found by its name.
create index agents_by_name on agents (name);

create table agent_versions (
  agent_id text {c} not null,
  version bigint not null,
  spec text {c} not null,
  created_at bigint not null,
  primary key (agent_id, version)
);

create table environments (
  id text {c} primary key,
  name text {c} not null,
  description text {c},
  config text {c} not null,
  metadata text {c} not null,
  managed_by text {c} not null check (managed_by in ('api', 'file')),
  created_at bigint not null,
  updated_at bigint not null,
  archived_at bigint,
  -- Whether its sessions work in place and therefore one at a time.
  exclusive bigint not null default 0 check (exclusive in (0, 1)),
  -- The one that has an unfinished turn there.
  session_id text {c},
  constraint occupied_is_exclusive check (session_id is null or exclusive = 1)
);
-- Names are unique among the living.
create unique index environments_by_name on environments (name) where archived_at is null;

-- Who may call in. `agent` sources carry the agent's id as their name.
create table sources (
  id text {c} primary key,
  kind text {c} not null check (kind in ('agent', 'named')),
  name text {c} not null,
  definition text {c} not null,
  paused bigint not null default 0 check (paused in (0, 1)),
  managed_by text {c} not null check (managed_by in ('api', 'file')),
  created_at bigint not null,
  updated_at bigint not null,
  retired_at bigint,
  unique (kind, name)
);

-- Sources whose sender hands over the secret, to whoever of its kind comes first while it is open.
create table windows (
  source_id text {c} primary key,
  -- 0: closed.
  open_until bigint not null,
  -- Until when the secret that came may be shown, once.
  shown_until bigint
);

-- How many turns of an agent or a source there may be. Only those with a limit are here.
create table turn_limits (
  -- An agent's or a source's id.
  owner text {c} primary key,
  at_once_max bigint check (at_once_max > 0),
  per_minute_max bigint check (per_minute_max > 0),
  constraint limited_somehow check (at_once_max is not null or per_minute_max is not null)
);

-- Turns that began within the last minute, of those whose turns in a minute are limited.
create table turns_begun (
  owner text {c} not null,
  at bigint not null,
  n bigint not null,
  primary key (owner, at)
) {keyed};
