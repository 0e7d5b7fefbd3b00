//! Requests in OpenAI's form: the fields that change what the emulator does. Others are accepted and have no effect.

use serde::Deserialize;

/// What both kinds of request have.
#[derive(Debug, Deserialize)]
pub(crate) struct Common {
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) stream: bool,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) max_tokens: Option<u32>,
    /// The newer name of the same, for chats; it wins.
    pub(crate) max_completion_tokens: Option<u32>,
    pub(crate) min_tokens: Option<u32>,
    #[serde(default)]
    pub(crate) ignore_eos: bool,
    pub(crate) n: Option<u32>,
    pub(crate) best_of: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub(crate) include_usage: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    pub(crate) prompt: Prompt,
    #[serde(default)]
    pub(crate) echo: bool,
}

/// The four forms that the API allows.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    pub(crate) text: Option<String>,
}
