//! Inside: what programs reach under a port of the sandbox's own network goes to the proxy's socket.

use std::io;

use tokio::net::{TcpListener, UnixStream};
use tokio_util::task::TaskTracker;

/// Forwards on a thread of its own, for as long as this process lives. Programs that connect now wait.
pub(in crate::tool) fn forward(socket: &'static str, port: u16) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            let tasks = TaskTracker::new();
            while let Ok((mut here, _)) = listener.accept().await {
                tasks.spawn(async move {
                    let Ok(mut there) = UnixStream::connect(socket).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
    });
    Ok(())
}
