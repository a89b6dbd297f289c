-- Files: uploaded, or a session's own. The bytes lie in `chunks`, under the id in `content`: a file
-- that is mounted into a session has the same bytes, and a row of its own.
create table files (
  id text {c} primary key,
  filename text {c} not null,
  mime_type text {c} not null,
  size_bytes bigint not null,
  content text {c} not null,
  n_chunks bigint not null,
  -- Empty for those of no session.
  session_id text {c} not null default '',
  created_at bigint not null,
  expires_at bigint,
  -- Of a session's output: where it lies there, and what it was when it was read.
  origin text {c}
) {keyed};
-- Files of a session, newest first.
create index files_by_session on files (session_id, id);
-- Whether bytes are needed by another file.
create index files_by_content on files (content);
-- What is past its time.
create index files_by_end on files (expires_at) where expires_at is not null;

-- What is mounted into sessions.
create table session_resources (
  id text {c} primary key,
  session_id text {c} not null,
  file_id text {c} not null,
  mount_path text {c} not null,
  created_at bigint not null,
  updated_at bigint not null,
  -- One thing at one path.
  unique (session_id, mount_path)
) {keyed};
-- The resources of a session in their order.
create index session_resources_by_session on session_resources (session_id, id);
