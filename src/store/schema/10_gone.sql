-- Sessions that were deleted and whose log is not gone yet: it goes in slices, and what a crash leaves
-- goes later.
create table sessions_gone (
  session_id text {c} primary key,
  at bigint not null
);
