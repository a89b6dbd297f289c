-- What the database knows about itself, and what keeps every node's snapshot of the configuration
-- fresh: `revision` grows with each change of a source, agent, environment, secret or key.
create table meta (
  name text {c} primary key,
  value text {c} not null
);
insert into meta (name, value) values ('revision', '1');

-- Secrets, sealed. One row for each version; more than one is live while an old value overlaps.
create table secrets (
  name text {c} not null,
  version bigint not null,
  sealed {bytes} not null,
  created_at bigint not null,
  -- When this version stops being valid; null for the current one.
  expires_at bigint,
  primary key (name, version)
);

-- Further API keys. Only the SHA-256 of a key is here.
create table api_keys (
  id text {c} primary key,
  name text {c} not null,
  hash text {c} not null unique,
  scopes text {c} not null,
  created_at bigint not null,
  revoked_at bigint
);

-- Who changed what. Append-only.
create table audit (
  id text {c} primary key,
  at bigint not null,
  actor text {c} not null,
  action text {c} not null,
  target text {c} not null,
  details text {c} not null
);
-- What one actor did, and each kind of change, newest first.
create index audit_by_actor on audit (actor, id);
create index audit_by_action on audit (action, id);

-- What each node counted in each half hour of the last day, for the charts of the overview.
create table days (
  node text {c} not null,
  began bigint not null,
  counts text {c} not null,
  primary key (node, began)
) {keyed};
