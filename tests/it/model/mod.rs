//! Models behind HTTP: the client by itself, and turns of a whole server, against a scripted model
//! server in each wire format.

/// A story for each format.
macro_rules! on_all {
    ($($story:ident),* $(,)?) => {$(
        mod $story {
            use crate::support::model_server::Format;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn anthropic() {
                super::$story(Format::Anthropic).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn chat() {
                super::$story(Format::Chat).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn responses() {
                super::$story(Format::Responses).await;
            }
        }
    )*};
}

mod client;
mod stories;
pub mod story;
