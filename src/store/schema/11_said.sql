-- Requests that said something in a session, kept for a short while: a client that got no answer sends
-- the same again.
create table said (
  session_id text {c} not null,
  -- Of who said it, and of all that was said.
  hash text {c} not null,
  -- Which try of the client this was, from 0, and when it came.
  attempt bigint not null,
  came_at bigint not null,
  -- As JSON, the events as they were answered: id and time of processing of each; or the run of a
  -- deployment, whose id is then in the place of the session's.
  answer text {c} not null,
  primary key (session_id, hash)
) {keyed};
-- Forgetting.
create index said_by_time on said (came_at);
