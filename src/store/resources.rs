//! What is mounted into sessions.
//!
//! A mounted file is the session's own: a row with the same bytes, which stays whatever becomes of
//! the one that it was made from, and goes with the session. Left out: how it gets to its path, which
//! is the runtime's.

use std::{collections::HashMap, time::Duration};

use super::{
    Change, Error, Page, Result, Store, audit,
    driver::{Lane, Row, Tx, params},
    files::{self, StoredFile},
    select::of_sessions,
};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        resource::{FileMount, RESOURCES_MAX, Resource, collide},
        session::{Session, Status},
    },
    id::{FileId, Id, ResourceId, SessionId},
};

const COLUMNS: &str = "id, file_id, mount_path, created_at, updated_at, session_id \
    from session_resources";

impl Store {
    /// Mounts one more file. [`Error::Conflict`] when the session takes nothing any more.
    pub async fn add_resource(
        &self,
        session: &SessionId,
        mount: FileMount,
        change: Change,
    ) -> Result<Resource> {
        let (session, at) = (session.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select archived_at, status from sessions where id = $1 {wait}";
                let mut row = tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                let over = row.int_or_null(0)?.is_some();
                if over || row.text(1)? == Status::Terminated.as_str() {
                    let text = "the session is over: nothing is mounted into it any more";
                    return Err(Error::Conflict(text.to_owned()));
                }
                let sql = "select count(*) from session_resources where session_id = $1";
                let n = tx.first(sql, &params![&session])?.ok_or(Error::Bug("no count"))?.int(0)?;
                if n >= RESOURCES_MAX as i64 {
                    let text = format!("has {RESOURCES_MAX} resources, as many as it may");
                    return Err(Error::Invalid(Problem::new("the session", text)));
                }
                let path = mount.path();
                let sql = "select mount_path from session_resources where session_id = $1";
                for mut row in tx.query(sql, &params![&session])? {
                    let other = row.text(0)?;
                    if collide(&other, &path) {
                        let text = format!(
                            "`{path}` cannot be beside `{other}`, the path of another resource of \
                             this session"
                        );
                        return Err(Error::Invalid(Problem::new("mount_path", text)));
                    }
                }
                let resource = self::mount(tx, &session, &mount, (at, at))?;
                let sql = "update sessions set updated_at = $2 where id = $1";
                tx.execute(sql, &params![&session, at])?;
                audit::note_only(tx, &change, at)?;
                Ok(resource)
            })
            .await
    }

    pub async fn resource(&self, session: &SessionId, id: &ResourceId) -> Result<Resource> {
        let (session, id) = (session.clone(), id.clone());
        self.driver
            .read(move |tx| {
                let sql = format!("select {COLUMNS} where id = $1 and session_id = $2");
                let row = tx.first(&sql, &params![&id, &session])?;
                row.ok_or(Error::NotFound).and_then(from_row).map(|(_, resource)| resource)
            })
            .await
    }

    /// In the order in which they were mounted.
    pub async fn resources(
        &self,
        session: &SessionId,
        cursor: Option<ResourceId>,
        limit: usize,
    ) -> Result<Page<Resource>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = "select 1 from sessions where id = $1";
                tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                let after = cursor.as_ref().map_or("", Id::as_str);
                let sql = format!(
                    "select {COLUMNS} where session_id = $1 and id > $2 order by id limit $3"
                );
                let rows = tx.query(&sql, &params![&session, after, limit as i64 + 1])?;
                let rows = rows.into_iter().map(from_row);
                let found = rows.map(|row| row.map(|(_, resource)| resource));
                let found = found.collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(found, limit, |resource| resource.id.to_string()))
            })
            .await
    }

    /// It vanishes from the session, and with it the session's own copy.
    pub async fn delete_resource(
        &self,
        session: &SessionId,
        id: &ResourceId,
        change: Change,
    ) -> Result<()> {
        let (session, id, at) = (session.clone(), id.clone(), self.clock.now());
        let content = self
            .driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select r.file_id, f.content from session_resources r \
                           join files f on f.id = r.file_id \
                           where r.id = $1 and r.session_id = $2";
                let mut row = tx.first(sql, &params![&id, &session])?.ok_or(Error::NotFound)?;
                let file: FileId = row.id(0)?;
                tx.execute("delete from session_resources where id = $1", &params![&id])?;
                tx.execute("delete from files where id = $1", &params![&file])?;
                let sql = "update sessions set updated_at = $2 where id = $1";
                tx.execute(sql, &params![&session, at])?;
                audit::note_only(tx, &change, at)?;
                row.text(1)
            })
            .await?;
        self.release_content(content).await
    }

    /// Paths and files that a session is to have.
    pub async fn mounted_files(&self, session: &SessionId) -> Result<Vec<(String, StoredFile)>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = "select mount_path, file_id from session_resources \
                           where session_id = $1 order by id";
                let mut mounted = Vec::new();
                for mut row in tx.query(sql, &params![&session])? {
                    let file: FileId = row.id(1)?;
                    let sql = format!("select {} where id = $1", files::COLUMNS);
                    // One that has vanished since is not there any more.
                    if let Some(found) = tx.first(&sql, &params![&file])? {
                        mounted.push((row.text(0)?, files::from_row(found)?));
                    }
                }
                Ok(mounted)
            })
            .await
    }
}

/// Mounts all files of a new session.
pub(super) fn mount_all(
    tx: &mut Tx<'_>,
    session: &SessionId,
    mounts: &[FileMount],
    at: Timestamp,
) -> Result<()> {
    // Ids sort by time, and these shall sort as they were given.
    let moments = (0..).map(|n| at.plus(Duration::from_millis(n)));
    let mut all = mounts.iter().zip(moments);
    all.try_for_each(|(it, moment)| mount(tx, session, it, (moment, at)).map(drop))
}

/// Whether a file is there, and not past its time.
pub(super) fn may_mount(tx: &mut Tx<'_>, file: &FileId, at: Timestamp) -> Result<bool> {
    let sql = "select 1 from files where id = $1 and (expires_at is null or expires_at > $2)";
    Ok(tx.first(sql, &params![file, at])?.is_some())
}

fn mount(
    tx: &mut Tx<'_>,
    session: &SessionId,
    mount: &FileMount,
    (moment, at): (Timestamp, Timestamp),
) -> Result<Resource> {
    // Locked, so that nobody removes the bytes meanwhile.
    let sql = "select content from files where id = $1 \
               and (expires_at is null or expires_at > $2) {wait}";
    if tx.first(sql, &params![&mount.file_id, at])?.is_none() {
        return Err(Error::Invalid(Problem::new("file_id", "there is no such file")));
    }
    let resource = Resource {
        id: ResourceId::new(moment),
        file_id: FileId::new(at),
        mount_path: mount.path(),
        created_at: at,
        updated_at: at,
    };
    // What is mounted stays for as long as the session needs it.
    tx.execute(
        "insert into files (id, filename, mime_type, size_bytes, content, n_chunks, session_id, \
         created_at) select cast($1 as text), filename, mime_type, size_bytes, content, n_chunks, \
         cast($3 as text), cast($4 as bigint) from files where id = $2",
        &params![&resource.file_id, &mount.file_id, session, at],
    )?;
    tx.execute(
        "insert into session_resources (id, session_id, file_id, mount_path, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $5)",
        &params![&resource.id, session, &resource.file_id, &resource.mount_path, at],
    )?;
    Ok(resource)
}

/// The resources of each of these sessions.
pub(super) fn of(
    tx: &mut Tx<'_>,
    sessions: &[Session],
) -> Result<HashMap<SessionId, Vec<Resource>>> {
    of_sessions(tx, COLUMNS, sessions, from_row)
}

fn from_row(mut row: Row) -> Result<(SessionId, Resource)> {
    let resource = Resource {
        id: row.id(0)?,
        file_id: row.id(1)?,
        mount_path: row.text(2)?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
    };
    Ok((row.id(5)?, resource))
}
