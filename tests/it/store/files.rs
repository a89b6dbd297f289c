//! Files: their bytes live as long as somebody needs them.

use bellpull::{
    clock::Timestamp,
    domain::{file::FileInfo, resource::FileMount},
    id::{FileId, Id as _},
    store::{Error, FileFilter, NewFile, NewSession, Store},
};
use bytes::Bytes;

use super::{
    Bench,
    bench::{HOUR, change},
};

on_both!(
    bytes_stay_until_nobody_needs_them,
    a_file_without_all_of_its_pieces_is_none,
    what_expires_and_whose_session_is_gone_is_swept,
    all_files_together_have_a_bound,
);

const TOTAL_MAX: i64 = 20_000_000;

impl Bench {
    async fn file(&self, size: usize, expires_at: Option<Timestamp>) -> FileInfo {
        let id: FileId = self.id();
        let data = Bytes::from(vec![7_u8; size]);
        let n_pieces = self.store.put_chunks(id.as_str(), data).await.unwrap();
        let file = NewFile { info: self.info(id, size, expires_at), n_pieces, origin: None };
        self.store.create_file(file, TOTAL_MAX, None).await.unwrap()
    }

    fn info(&self, id: FileId, size: usize, expires_at: Option<Timestamp>) -> FileInfo {
        FileInfo {
            id,
            filename: "a".to_owned(),
            mime_type: "text/plain".to_owned(),
            size_bytes: size as i64,
            session_id: None,
            created_at: self.clock.now(),
            expires_at,
        }
    }

    async fn n_pieces(&self) -> i64 {
        self.place.number("select count(*) from chunks").await
    }

    async fn session_with(&self, file: &FileInfo) -> bellpull::domain::session::Session {
        let mount = FileMount { file_id: file.id.clone(), mount_path: None };
        let session = NewSession { resources: vec![mount], ..self.new_session(&self.agent) };
        self.store.create_session(session).await.unwrap()
    }
}

async fn bytes_stay_until_nobody_needs_them(bench: Bench) {
    // More pieces than one transaction removes.
    let file = bench.file(40 * Store::PIECE_BYTES - 1, None).await;
    assert_eq!(bench.n_pieces().await, 40);
    let one = bench.session_with(&file).await;
    let two = bench.session_with(&file).await;
    assert_eq!((bench.n_pieces().await, one.resources.len()), (40, 1), "they share the bytes");
    bench.store.delete_file(&file.id, change("test")).await.unwrap();
    assert_fails!(bench.store.file(&file.id).await, Error::NotFound);
    assert_eq!(bench.n_pieces().await, 40);
    let mounted = bench.store.mounted_files(&one.id).await.unwrap();
    assert_eq!((mounted.len(), mounted[0].1.n_pieces), (1, 40));
    // Nor does the sweep take them for left over.
    bench.clock.advance(2 * HOUR);
    assert_eq!(bench.store.sweep_orphans().await.unwrap(), 0);
    bench.store.delete_resource(&one.id, &one.resources[0].id, change("test")).await.unwrap();
    assert_eq!(bench.n_pieces().await, 40);
    bench.store.delete_resource(&two.id, &two.resources[0].id, change("test")).await.unwrap();
    assert_eq!(bench.n_pieces().await, 0);
}

async fn a_file_without_all_of_its_pieces_is_none(bench: Bench) {
    let id: FileId = bench.id();
    bench.store.put_piece(id.as_str(), 0, Bytes::from_static(b"x")).await.unwrap();
    let file = NewFile { info: bench.info(id.clone(), 1, None), n_pieces: 2, origin: None };
    assert_fails!(bench.store.create_file(file, TOTAL_MAX, None).await, Error::Bug(_));
    assert_fails!(bench.store.file(&id).await, Error::NotFound);
    bench.clock.advance(2 * HOUR);
    assert_eq!(bench.store.sweep_orphans().await.unwrap(), 1);
    assert_eq!(bench.n_pieces().await, 0);
}

async fn what_expires_and_whose_session_is_gone_is_swept(bench: Bench) {
    let expires = bench.clock.now().plus(HOUR);
    let file = bench.file(10, Some(expires)).await;
    let session = bench.session_with(&file).await;
    let listed = async || {
        let page = bench.store.files(FileFilter { limit: 10, ..FileFilter::default() }).await;
        page.unwrap().data.len()
    };
    assert_eq!(listed().await, 2);
    bench.clock.advance(2 * HOUR);
    assert_eq!(listed().await, 1, "the session's own stays");
    let again = FileMount { file_id: file.id.clone(), mount_path: Some("/workspace/a".to_owned()) };
    let again = bench.store.add_resource(&session.id, again, change("test")).await;
    assert_fails!(again, Error::Invalid(_));
    bench.clock.advance(48 * HOUR);
    assert_eq!(bench.store.sweep_files().await.unwrap(), 1);
    assert_eq!((listed().await, bench.n_pieces().await), (1, 1));
    bench.place.script("delete from sessions").await;
    assert_eq!(bench.store.sweep_files().await.unwrap(), 1);
    assert_eq!((listed().await, bench.n_pieces().await), (0, 0));
}

async fn all_files_together_have_a_bound(bench: Bench) {
    let file = bench.file(6_000_000, None).await;
    bench.session_with(&file).await;
    let room = async |bytes| bench.store.room_for_file(bytes, TOTAL_MAX).await;
    room(14_000_000).await.unwrap();
    assert_fails!(room(14_000_001).await, Error::Full(_));
    let id: FileId = bench.id();
    let file = NewFile { info: bench.info(id, 14_000_001, None), n_pieces: 0, origin: None };
    assert_fails!(bench.store.create_file(file, TOTAL_MAX, None).await, Error::Full(_));
}
