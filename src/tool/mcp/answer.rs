//! What a server answers to a call, in blocks that a model can be told.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::json;

use crate::domain::event::Block;

/// Images that models see.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// What has no words or picture is named, so that nothing goes missing unsaid.
pub(super) fn blocks(result: CallToolResult, media_bytes_max: usize) -> Vec<Block> {
    let mut blocks: Vec<Block> =
        result.content.into_iter().map(|block| shown(block, media_bytes_max)).collect();
    if blocks.is_empty()
        && let Some(structured) = result.structured_content
    {
        blocks.push(Block::text(structured.to_string()));
    }
    if blocks.is_empty() {
        blocks.push(Block::text("(no content)"));
    }
    blocks
}

fn shown(block: ContentBlock, media_bytes_max: usize) -> Block {
    match block {
        ContentBlock::Text(text) => Block::text(text.text),
        ContentBlock::Image(image) => picture(&image.mime_type, image.data, media_bytes_max),
        ContentBlock::Audio(audio) => Block::text(format!("[audio: {}]", audio.mime_type)),
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => {
                Block::text(format!("[resource {uri}]\n{text}"))
            }
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                let kind = mime_type.unwrap_or_default();
                if IMAGES.contains(&kind.as_str()) {
                    return picture(&kind, blob, media_bytes_max);
                }
                Block::text(format!("[resource {uri}: {kind}, no text]"))
            }
            _ => Block::text("[a resource of an unknown kind]"),
        },
        ContentBlock::ResourceLink(link) => {
            Block::text(format!("[resource link: {} {}]", link.name, link.uri))
        }
        _ => Block::text("[content of an unknown kind]"),
    }
}

/// `data` is base64, which is a third longer than what it stands for.
fn picture(kind: &str, data: String, bytes_max: usize) -> Block {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if !IMAGES.contains(&kind) || !data.bytes().all(is_base64) {
        return Block::text("[an image of a kind that is not shown]");
    }
    if data.len() / 4 * 3 > bytes_max {
        return Block::text(format!("[an image larger than the {bytes_max} bytes that are shown]"));
    }
    Block::Image { source: json!({"type": "base64", "media_type": kind, "data": data}) }
}
