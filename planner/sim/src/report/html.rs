//! The page: markup, style, script and data in one file.

use super::Report;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub(super) fn page(report: &Report) -> Result<String, serde_json::Error> {
    // Within a script element only "</" could end it, and "<!--" begin a comment; both are the same string escaped.
    let data = serde_json::to_string(report)?.replace('<', "\\u003c");
    let title = escaped(&report.title);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main id=\"report\">\n\
         <noscript>The charts are drawn by a script in this file; the numbers are in its last element as JSON.\
         </noscript>\n</main>\n<script id=\"data\" type=\"application/json\">{data}</script>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
