-- What sessions shall reach: a row for each `user.define_outcome`. All of it but the waiting follows from
-- events of the log, in their transactions.
create table outcomes (
  id text {c} primary key,
  session_id text {c} not null,
  description text {c} not null,
  result text {c} not null
    check (result = 'pending' or result = 'running' or result = 'evaluating' or result = 'satisfied'
      or result = 'max_iterations_reached' or result = 'failed' or result = 'interrupted'),
  -- Revisions so far.
  iteration bigint not null default 0,
  -- What the grader said last.
  explanation text {c},
  completed_at bigint,
  constraint open_has_no_end
    check ((result = 'pending' or result = 'running' or result = 'evaluating') = (completed_at is null))
) {keyed};
-- Those of a session, in their order.
create index outcomes_by_session on outcomes (session_id, id);
-- One at a time.
create unique index outcomes_open on outcomes (session_id) where completed_at is null;
