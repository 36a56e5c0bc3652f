//! XML texts written by others: of bounded size, and without what makes a short text expand to a long one.

use roxmltree::{Document, ParsingOptions};

/// Maximum number of elements, attributes and texts.
const MAX_NODES: u32 = 100_000;

/// How a text may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preamble {
    /// At most with the XML declaration.
    Bare,
    /// With a document type as well, which may be named but must define nothing.
    NamesType,
}

/// Parses a text. The caller that reads it bounds its length.
///
/// # Errors
/// The reason why the text was refused, in words.
pub(crate) fn parse(text: &str, preamble: Preamble) -> Result<Document<'_>, String> {
    if text.contains("<!ENTITY") {
        return Err("it defines entities".to_owned());
    }
    let options = ParsingOptions {
        allow_dtd: preamble == Preamble::NamesType,
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_where_that_is_allowed_and_nothing_is_ever_defined() {
        let named = "<!DOCTYPE a PUBLIC \"-//A//B\" \"http://a/b.dtd\"><a/>";
        assert!(parse(named, Preamble::Bare).is_err());
        assert!(parse(named, Preamble::NamesType).is_ok());
        let defined = "<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>";
        let error = parse(defined, Preamble::NamesType).unwrap_err();
        assert_eq!(error, "it defines entities");
    }

    #[test]
    fn too_many_elements_are_refused() {
        let text = format!("<a>{}</a>", "<b/>".repeat(MAX_NODES as usize));
        assert!(parse(&text, Preamble::Bare).is_err());
    }
}
