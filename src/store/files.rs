//! Files: what was uploaded, and what sessions have.
//!
//! The bytes are written in pieces before the row that makes a file of them, and removed in slices
//! after the last row that needs them: nobody waits behind a large file. Invariant: a file that can be
//! seen has all of its pieces. Left out: what is done with files in a session, which `resources` and
//! the runtime know.

use std::time::Duration;

use super::{
    Change, Error, Page, Result, Store, audit,
    driver::{Lane, Row, Tx, params},
    select::Select,
};
use crate::{
    domain::file::FileInfo,
    id::{FileId, Id, SessionId},
};

/// Pieces that one transaction removes.
const SLICE: i64 = 32;

/// How long it is remembered that a file has expired.
const EXPIRED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Files that one sweep removes.
const SWEEP_MAX: i64 = 100;

/// A file whose pieces have been written under its id.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub info: FileInfo,
    pub n_pieces: i64,
    /// Of a session's output: where it lies there, and what it was when it was read.
    pub origin: Option<String>,
}

/// A file and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    pub info: FileInfo,
    /// What its pieces are stored under.
    pub content: String,
    pub n_pieces: i64,
}

/// Which files a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    pub session_id: Option<SessionId>,
    /// Only these, if any are given.
    pub ids: Vec<FileId>,
    /// Those that were made before this one.
    pub after: Option<FileId>,
    /// Those that were made later than this one, the nearest of them.
    pub before: Option<FileId>,
    pub limit: usize,
}

pub(super) const COLUMNS: &str = "id, filename, mime_type, size_bytes, session_id, created_at, \
    expires_at, content, n_chunks from files";

impl Store {
    /// [`Error::Full`] when all files together would have more than `total_max` bytes.
    pub async fn create_file(
        &self,
        file: NewFile,
        total_max: i64,
        change: Option<Change>,
    ) -> Result<FileInfo> {
        let at = self.clock.now();
        self.driver
            .transaction(Lane::Work, move |tx| {
                let NewFile { info, n_pieces, origin } = file;
                if used(tx)?.saturating_add(info.size_bytes) > total_max {
                    return Err(full(total_max));
                }
                let sql = "select count(*) from chunks where owner = $1";
                let found =
                    tx.first(sql, &params![&info.id])?.ok_or(Error::Bug("no count"))?.int(0)?;
                if found != n_pieces {
                    return Err(Error::Bug("a file without all of its pieces"));
                }
                tx.execute(
                    "insert into files (id, filename, mime_type, size_bytes, content, n_chunks, \
                     session_id, created_at, expires_at, origin) \
                     values ($1, $2, $3, $4, $1, $5, $6, $7, $8, $9)",
                    &params![
                        &info.id,
                        &info.filename,
                        &info.mime_type,
                        info.size_bytes,
                        n_pieces,
                        info.session_id.as_ref().map_or("", Id::as_str),
                        info.created_at,
                        info.expires_at,
                        origin,
                    ],
                )?;
                if let Some(change) = change {
                    audit::note_only(tx, &change, at)?;
                }
                Ok(info)
            })
            .await
    }

    /// [`Error::Full`] when there is no room for so many bytes more.
    pub async fn room_for_file(&self, bytes: i64, total_max: i64) -> Result<()> {
        self.driver
            .read(move |tx| match used(tx)?.saturating_add(bytes) > total_max {
                true => Err(full(total_max)),
                false => Ok(()),
            })
            .await
    }

    pub async fn file(&self, id: &FileId) -> Result<StoredFile> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![&id])?;
                row.ok_or(Error::NotFound).and_then(from_row)
            })
            .await
    }

    /// Newest first. With `before`, `next` says whether there are still newer ones.
    pub async fn files(&self, filter: FileFilter) -> Result<Page<FileInfo>> {
        let now = self.clock.now();
        self.driver
            .read(move |tx| {
                let sql = format!("select {COLUMNS} where (expires_at is null or expires_at > $1)");
                let mut select = Select::new(sql, [now.into()]);
                select.and_some("session_id =", filter.session_id.as_ref());
                select.and_some("id <", filter.after.as_ref());
                select.and_some("id >", filter.before.as_ref());
                select.and_among("id", &filter.ids);
                let order = if filter.before.is_some() { "id asc" } else { "id desc" };
                let (sql, values) = select.page(order, filter.limit);
                let rows = tx.query(&sql, &values)?.into_iter();
                let files = rows.map(|row| from_row(row).map(|file| file.info));
                let files = files.collect::<Result<Vec<_>>>()?;
                let mut page = Page::from_rows(files, filter.limit, |file| file.id.to_string());
                if filter.before.is_some() {
                    page.data.reverse();
                }
                Ok(page)
            })
            .await
    }

    /// For ever, and with its bytes, if they are nobody else's. It vanishes from its session, too.
    pub async fn delete_file(&self, id: &FileId, change: Change) -> Result<()> {
        let (id, at) = (id.clone(), self.clock.now());
        let content = self
            .driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select content from files where id = $1 {wait}";
                let content = tx.first(sql, &params![&id])?.ok_or(Error::NotFound)?.text(0)?;
                tx.execute("delete from session_resources where file_id = $1", &params![&id])?;
                tx.execute("delete from files where id = $1", &params![&id])?;
                audit::note_only(tx, &change, at)?;
                Ok(content)
            })
            .await?;
        self.release_content(content).await
    }

    /// Removes bytes that no file needs any more. What is cut off here the sweep of pieces finishes.
    pub async fn release_content(&self, content: String) -> Result<()> {
        loop {
            let content = content.clone();
            let removing = self.driver.transaction(Lane::Work, move |tx| {
                tx.execute(
                    "delete from chunks where owner = $1 and n in \
                     (select n from chunks where owner = $1 order by n desc limit $2) \
                     and not exists (select 1 from files where content = $1)",
                    &params![content, SLICE],
                )
            });
            if removing.await? == 0 {
                return Ok(());
            }
        }
    }

    /// Removes files that have expired, and those of sessions that are gone; answers how many.
    pub async fn sweep_files(&self) -> Result<u64> {
        let before = self.clock.now().minus(EXPIRED_KEPT);
        let contents = self
            .driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select id, content from files where expires_at is not null \
                           and expires_at < $1 \
                           union all select id, content from files where session_id <> '' \
                           and not exists (select 1 from sessions s where s.id = session_id) \
                           limit $2";
                let mut contents = Vec::new();
                for mut row in tx.query(sql, &params![before, SWEEP_MAX])? {
                    let id: FileId = row.id(0)?;
                    tx.execute("delete from session_resources where file_id = $1", &params![&id])?;
                    tx.execute("delete from files where id = $1", &params![&id])?;
                    contents.push(row.text(1)?);
                }
                Ok(contents)
            })
            .await?;
        let n = contents.len() as u64;
        for content in contents {
            self.release_content(content).await?;
        }
        Ok(n)
    }

    /// The outputs of a session that are known, by where they lie and what they were.
    pub async fn session_outputs(&self, session: &SessionId) -> Result<Vec<(FileId, String)>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = "select id, origin from files where session_id = $1 \
                           and origin is not null order by id";
                let rows = tx.query(sql, &params![&session])?.into_iter();
                rows.map(|mut row| Ok((row.id(0)?, row.text(1)?))).collect()
            })
            .await
    }
}

/// Bytes of all files. What is mounted into sessions is there once.
fn used(tx: &mut Tx<'_>) -> Result<i64> {
    // A sum of bigint is no bigint on PostgreSQL.
    let sql = "select cast(coalesce(sum(size_bytes), 0) as bigint) from files where content = id";
    tx.first(sql, &[])?.ok_or(Error::Bug("no sum"))?.int(0)
}

fn full(total_max: i64) -> Error {
    Error::Full(format!("all files together have as much as they may, {total_max} bytes"))
}

pub(super) fn from_row(mut row: Row) -> Result<StoredFile> {
    let session = row.text(4)?;
    let session_id = match session.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| Error::Bug("a file of no session"))?),
    };
    Ok(StoredFile {
        info: FileInfo {
            id: row.id(0)?,
            filename: row.text(1)?,
            mime_type: row.text(2)?,
            size_bytes: row.int(3)?,
            session_id,
            created_at: row.time(5)?,
            expires_at: row.time_or_null(6)?,
        },
        content: row.text(7)?,
        n_pieces: row.int(8)?,
    })
}
