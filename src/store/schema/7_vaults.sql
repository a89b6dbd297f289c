-- Vaults: credentials that sessions are given.
create table vaults (
  id text {c} primary key,
  display_name text {c} not null,
  metadata text {c} not null,
  created_at bigint not null,
  updated_at bigint not null,
  archived_at bigint
);

create table credentials (
  id text {c} primary key,
  vault_id text {c} not null,
  display_name text {c},
  metadata text {c} not null,
  -- What it is for, as vaults compare it; and everything about it that may be said.
  key text {c} not null,
  auth text {c} not null,
  -- All of its values as one, and how often they were changed. Archived, it has none.
  sealed {bytes},
  version bigint not null default 1,
  -- Until when somebody renews its token: a refresh token is good for one use.
  renewing_until bigint,
  created_at bigint not null,
  updated_at bigint not null,
  archived_at bigint,
  constraint archived_is_empty check ((archived_at is null) = (sealed is not null))
);
-- One of a key in a vault at a time; and the credentials of a session's vaults.
create unique index credentials_in_use on credentials (vault_id, key) where archived_at is null;
-- The list of a vault's credentials, newest first.
create index credentials_by_vault on credentials (vault_id, id);

-- What a version of an agent was told of the tools of its MCP servers when it first saw them: a hash of
-- each one's name, description and schema.
create table mcp_pins (
  agent_id text {c} not null,
  agent_version bigint not null,
  server text {c} not null,
  tool text {c} not null,
  hash text {c} not null,
  pinned_at bigint not null,
  primary key (agent_id, agent_version, server, tool)
) {keyed};
