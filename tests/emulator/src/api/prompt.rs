//! From a prompt to tokens.

use crate::{
    api::{
        error::ApiError,
        types::{ChatRequest, Content, Prompt},
    },
    prefix,
    words::mix,
};

/// Bytes of UTF-8 that make one token of text: near what tokenizers of today do with English.
const BYTES_PER_TOKEN: usize = 4;

/// A prompt, counted and hashed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) tokens: u32,
    pub(crate) chain: Vec<u64>,
    /// A hash of the whole prompt: what an answer's dice depend on.
    pub(crate) hash: u64,
}

pub(crate) fn of_completion(prompt: Prompt, block_size: u32) -> Result<Counted, ApiError> {
    match prompt {
        Prompt::Text(text) => count_text(&text, block_size),
        Prompt::Tokens(tokens) => count(tokens.len(), tokens.iter().copied(), block_size),
        Prompt::Texts(texts) => match <[String; 1]>::try_from(texts) {
            Ok([text]) => count_text(&text, block_size),
            Err(_) => Err(several()),
        },
        Prompt::TokenLists(lists) => match <[Vec<u32>; 1]>::try_from(lists) {
            Ok([tokens]) => count(tokens.len(), tokens.iter().copied(), block_size),
            Err(_) => Err(several()),
        },
    }
}

/// Renders the chat as text, one line a message and an opening for the answer, and counts that.
pub(crate) fn of_chat(request: &ChatRequest, block_size: u32) -> Result<Counted, ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::bad("messages", "there is no message: give at least one"));
    }
    let mut text = String::new();
    for message in &request.messages {
        text.push_str(&message.role);
        text.push_str(": ");
        match &message.content {
            None => {}
            Some(Content::Text(content)) => text.push_str(content),
            Some(Content::Parts(parts)) => {
                for part in parts {
                    let Some(content) = &part.text else {
                        return Err(ApiError::bad(
                            "messages",
                            "only text is understood here: leave other parts out",
                        ));
                    };
                    text.push_str(content);
                }
            }
        }
        text.push('\n');
    }
    text.push_str("assistant: ");
    count_text(&text, block_size)
}

fn count_text(text: &str, block_size: u32) -> Result<Counted, ApiError> {
    let pieces = text.as_bytes().chunks(BYTES_PER_TOKEN);
    let tokens = pieces.map(|piece| piece.iter().fold(0, |token, byte| token << 8 | u32::from(*byte)));
    count(text.len().div_ceil(BYTES_PER_TOKEN), tokens, block_size)
}

fn count(
    tokens: usize,
    each: impl Iterator<Item = u32> + Clone,
    block_size: u32,
) -> Result<Counted, ApiError> {
    if tokens == 0 {
        return Err(ApiError::bad("prompt", "the prompt is empty: give at least one token"));
    }
    let hash = each.clone().fold(tokens as u64, |hash, token| mix(hash ^ u64::from(token)));
    Ok(Counted {
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        chain: prefix::chain(each, block_size),
        hash,
    })
}

fn several() -> ApiError {
    ApiError::bad(
        "prompt",
        "exactly one prompt a request is understood here: send the others in requests of their own",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_exactly_and_text_by_four_bytes() {
        assert_eq!(of_completion(Prompt::Tokens(vec![7; 33]), 16).unwrap().tokens, 33);
        assert_eq!(of_completion(Prompt::TokenLists(vec![vec![1, 2]]), 16).unwrap().tokens, 2);
        assert_eq!(of_completion(Prompt::Text("abcdefghi".to_owned()), 16).unwrap().tokens, 3);
        assert!(of_completion(Prompt::Texts(vec![String::new()]), 16).is_err());
        assert!(of_completion(Prompt::Texts(vec!["a".to_owned(), "b".to_owned()]), 16).is_err());
    }

    #[test]
    fn a_longer_chat_begins_with_the_blocks_of_the_shorter() {
        let chat = |text: &str| {
            let body = serde_json::json!({ "messages": [
                { "role": "system", "content": "You keep the books of a shipping company, and keep them well." },
                { "role": "user", "content": [{ "type": "text", "text": text }] },
            ] });
            of_chat(&serde_json::from_value(body).unwrap(), 4).unwrap()
        };
        let (short, long) = (chat("How much?"), chat("How much freight is there?"));
        let shared = short.chain.iter().zip(&long.chain).take_while(|(one, two)| one == two).count();
        assert!(shared >= 4, "{shared}");
        assert_ne!(short.hash, long.hash);
    }
}
